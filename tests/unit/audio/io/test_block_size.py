"""Memory does not follow from what a header claims: blocks are sized in bytes."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.open import open_audio
from rave_dist.errors import AudioError

LIMIT = 32 << 20


def wav(channels: int, rate: int, data: bytes) -> bytes:
    align = 2 * channels
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * align & 0xFFFFFFFF, align, 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + fmt + b"data" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(("channels", "rate"), [(256, 3_072_000), (200, 400_000), (24, 3_072_000)])
def test_an_impossible_combination_of_channels_and_rate_is_named(tmp_path, channels, rate):
    (tmp_path / "many.wav").write_bytes(wav(channels, rate, bytes(512_000)))
    tracemalloc.start()
    with pytest.raises(AudioError) as caught, open_audio(tmp_path / "many.wav"):
        pass
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert caught.value.what == f"damaged: the header gives {channels} channels at {rate} Hz"


@pytest.mark.parametrize(("channels", "rate"), [(256, 192_000), (2, 3_072_000), (64, 48_000)])
def test_blocks_of_many_channels_are_shorter_and_hold_the_same_samples(tmp_path, channels, rate):
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, (80 * 2**20 // 4 // channels, channels), dtype=np.int16)
    (tmp_path / "many.wav").write_bytes(wav(channels, rate, pcm.tobytes()))
    tracemalloc.start()
    place = 0
    with open_audio(tmp_path / "many.wav") as decoder:
        for block in decoder.blocks(60):
            assert block.nbytes <= LIMIT
            np.testing.assert_array_equal(block[:, ::997] * 2**15, pcm[place : place + block.shape[1] : 997].T)
            place += block.shape[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert place == len(pcm)
    assert peak < 5 * LIMIT


def test_blocks_of_usual_recordings_have_the_requested_length(tmp_path):
    soundfile.write(tmp_path / "take.wav", np.zeros((25 * 44100, 2), np.float32), 44100)
    with open_audio(tmp_path / "take.wav") as decoder:
        assert [block.shape[1] for block in decoder.blocks(10)] == [441000, 441000, 220500]
