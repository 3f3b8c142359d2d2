"""Cutting: cores cover the stream once, in order, on frame boundaries, with all the context that exists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rave_dist.audio.dsp.chunks import cut, round_up


def _split(stream: np.ndarray, size: int) -> list[np.ndarray]:
    return [stream[:, i : i + size] for i in range(0, stream.shape[1], size)]


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(0, 500),
    block=st.integers(1, 600),
    hop=st.integers(1, 16),
    frames=st.integers(1, 30),
    left=st.integers(0, 90),
    right=st.integers(0, 90),
)
def test_cores_are_the_stream_and_contexts_are_its_neighbours(
    length: int, block: int, hop: int, frames: int, left: int, right: int
) -> None:
    stream = np.arange(1, 2 * length + 1, dtype=np.float32).reshape(2, length)
    padded = np.pad(stream, ((0, 0), (0, round_up(length, hop) - length)))
    at = 0
    for samples, position, core in cut(_split(stream, block), hop=hop, core=hop * frames, context=(left, right)):
        start, stop = position + core.start, position + core.stop
        assert start == at
        assert position % hop == 0
        assert samples.shape[1] % hop == 0
        np.testing.assert_array_equal(samples, padded[:, position : position + samples.shape[1]])
        assert position <= max(0, start - left), "too little context on the left"
        assert position + samples.shape[1] >= min(padded.shape[1], stop + right), "too little context on the right"
        at = stop
    assert at == length


def test_a_chunk_below_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        list(cut([np.zeros((1, 10), np.float32)], hop=16, core=15, context=(0, 0)))


def test_no_more_is_held_than_one_chunk_and_one_block() -> None:
    given_out = 0

    def blocks() -> object:
        nonlocal given_out
        for _ in range(1000):
            given_out += 100
            yield np.zeros((1, 100), np.float32)

    for chunk in cut(blocks(), hop=8, core=160, context=(40, 24)):  # type: ignore[arg-type]
        assert given_out - (chunk.position + chunk.core.stop) <= 24 + 100
        assert chunk.samples.shape[1] <= 40 + 160 + 24
