"""A recording that is read from a store by ranges is opened as the same file on a disk, and few of its bytes are requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rave_dist.audio.io import partial_copy, sources
from rave_dist.audio.io.decoders import DECODERS
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.open_file import OpenFile
from rave_dist.audio.io.sources import AudioSource, list_sources
from rave_dist.checks.candidate import Recording
from rave_dist.checks.recordings import open_recordings
from rave_dist.errors import StoreError
from rave_dist.storage.local import LocalFolder
from rave_dist.storage.schemes import SCHEMES
from tests.unit.audio.io.generated import KINDS, encoders, sound, write_kind

RATE = 44100
PLAIN = {"wav": "PCM_16", "flac": "PCM_24", "aiff": "PCM_24", "caf": "FLOAT", "w64": "PCM_16", "au": "ULAW", "ogg": "VORBIS"}


class Ranges:
    """The ranges that were requested of the folder behind ``ranges://``, and what happens before each request."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requested: list[range] = []
        self.before: Callable[[], None] = lambda: None

    def source(self, path: Path) -> AudioSource:
        (source,) = list_sources([f"ranges://x/{path.relative_to(self.root)}"])
        return source

    def open(self, path: Path) -> Recording:
        (recording,) = open_recordings([self.source(path)])
        return recording

    @property
    def bytes(self) -> int:
        return sum(map(len, self.requested))


@pytest.fixture
def ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranges]:
    found = Ranges(tmp_path)

    class Folder(LocalFolder):
        def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
            found.before()
            found.requested.append(range(start, stop))
            return super().read_range(key, start, stop)

        def download(self, key: str, path: Path) -> None:
            raise AssertionError("a whole recording was requested")

    SCHEMES.register("ranges", lambda name, prefix: Folder(tmp_path / prefix))
    yield found
    del SCHEMES._entries["ranges"]


def values(recording: Recording) -> tuple[object, ...]:
    return recording.seconds, recording.sample_rate, recording.error, recording.fix, recording.notes


def on_disk(path: Path) -> Recording:
    (recording,) = open_recordings(list_sources([str(path)]))
    return recording


def plain(path: Path, seconds: float, channels: int = 2) -> Path:
    subtype = PLAIN[path.suffix[1:]]
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * RATE), channels)).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE, channels, subtype=subtype) as file:
        for start in range(0, len(noise), RATE):  # libsndfile's stack is too small for minutes of Vorbis
            file.write(noise[start : start + RATE])
    return path


def damaged(data: bytes, way: str, at: float) -> bytes:
    place = round(at * len(data))
    return {
        "intact": data,
        "cut": data[:place],
        "zeros": data[:place] + bytes(len(data) - place),
        "hole": data[:place] + b"\x55" * 700 + data[place + 700 :],
        "followed": data + b"junk" * 300,
        "padded": data + bytes(3000),
        "joined": data + data,
    }[way]


WAYS = ("intact", "cut", "zeros", "hole", "followed", "padded", "joined")


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from([*PLAIN, *KINDS]),
    way=st.sampled_from(WAYS),
    at=st.floats(0.01, 0.99),
    block=st.sampled_from([97, 4096]),
)
def test_it_is_opened_as_on_a_disk(ranges: Ranges, tmp_path: Path, kind: str, way: str, at: float, block: int) -> None:
    if kind in PLAIN:
        path = plain(tmp_path / f"take.{kind}", 0.4)
    elif KINDS[kind].codec in encoders():
        rate = KINDS[kind].rates[-1]
        path = write_kind(tmp_path / "take", sound(rate, KINDS[kind].channels[-1], rate), rate, KINDS[kind])
    else:
        return
    path.write_bytes(damaged(path.read_bytes(), way, at))
    ranges.requested.clear()
    with pytest.MonkeyPatch.context() as small:
        small.setattr(partial_copy, "_BLOCK_BYTES", block)
        assert values(ranges.open(path)) == values(on_disk(path))
    assert ranges.bytes <= path.stat().st_size, "some bytes were requested twice"


@pytest.mark.parametrize(
    ("suffix", "requests", "most"),
    [("wav", 2, 560_000), ("flac", 6, 1_200_000), ("aiff", 2, 560_000), ("caf", 2, 560_000), ("au", 2, 560_000)],
)
def test_few_bytes_of_a_long_recording_are_requested(
    ranges: Ranges, tmp_path: Path, suffix: str, requests: int, most: int
) -> None:
    path = plain(tmp_path / f"take.{suffix}", 120)
    assert ranges.open(path).seconds == 120
    assert ranges.bytes < most
    assert len(ranges.requested) == requests


def test_a_recording_that_is_read_whole_is_requested_in_few_ranges(ranges: Ranges, tmp_path: Path) -> None:
    path = plain(tmp_path / "take.ogg", 100)
    assert ranges.open(path).seconds == 100
    assert ranges.bytes == path.stat().st_size > 1_000_000
    assert len(ranges.requested) <= 8


def test_all_of_it_can_be_decoded(ranges: Ranges, tmp_path: Path) -> None:
    path = plain(tmp_path / "take.wav", 20)
    with sources.partial_copy(ranges.source(path)) as copy, open_audio(copy) as decoder, open_audio(path) as other:
        np.testing.assert_array_equal(
            np.concatenate(list(decoder.blocks()), axis=1), np.concatenate(list(other.blocks()), axis=1)
        )


def test_a_recording_that_changes_is_an_error(ranges: Ranges, tmp_path: Path) -> None:
    path = plain(tmp_path / "take.wav", 20)
    source = ranges.source(path)
    plain(path, 21)
    (recording,) = open_recordings([source])
    assert recording.error == "the file changed while it was read"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("after", range(4))
def test_a_store_that_fails_is_not_taken_for_damage(ranges: Ranges, tmp_path: Path, suffix: str, after: int) -> None:
    path = plain(tmp_path / f"take.{suffix}", 60)

    refused: list[int] = []

    def refuse() -> None:
        if len(ranges.requested) == after:
            refused.append(after)
            raise StoreError("the server answers 503", where="s3", fix="wait")

    ranges.before = refuse
    recording = ranges.open(path)
    assert len(refused) <= 1, "a server that refuses is not asked again for the same recording"
    if refused:
        assert (recording.error, recording.fix) == ("the server answers 503", "wait")
    else:
        assert recording.error is None


def test_a_decoder_of_an_extension_gets_a_whole_file(ranges: Ranges, tmp_path: Path) -> None:
    (tmp_path / "take.bytes").write_bytes(bytes(range(256)) * 4000)
    seen: list[bytes] = []

    @contextmanager
    def opened(path: Path) -> Iterator[OpenFile]:
        seen.append(path.read_bytes())
        yield OpenFile(RATE, 1, RATE, format="bytes", subtype="", tolerance=0, read=lambda size: iter(()))

    DECODERS.register("bytes", opened)
    try:
        assert ranges.open(tmp_path / "take.bytes").seconds == 1
    finally:
        del DECODERS._entries["bytes"]
    assert seen == [(tmp_path / "take.bytes").read_bytes()]
