"""The trouble of one source or output stays with it: it is named, with a fix, and the rest is converted; also on a rerun."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.decoders import DECODERS
from rave_dist.audio.io.open_file import OpenFile
from rave_dist.errors import StoreError
from rave_dist.records import ConversionRecord
from rave_dist.storage.store import Store
from tests.file_systems import tmpfs

RATE = 8000
Convert = Callable[..., ConversionRecord]


def write(path: Path | bytes, *, samples: int = 800, rate: int = RATE, channels: int = 1) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal((samples, channels))
    with open(path, "wb") as file:
        soundfile.write(file, sound, rate, format="WAV")


def reasons(record: ConversionRecord) -> dict[str, str]:
    return {Path(item.source).name: item.reason or "" for item in record.failed}


def test_a_name_that_cannot_exist_is_named_and_the_longest_that_can_is_written(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    # .flac is a byte longer than .wav; a byte that is not UTF-8 becomes four letters
    for name in (b"a", b"n" * 238, b"n" * 245, b"n" * 250, b"\xef" * 62, b"z"):
        write(os.fsencode(tmp_path) + b"/in/" + name + b".wav")
    for name in (b"n" * 251, b"\xef" * 63, b"\xef" * 72):
        write(os.fsencode(tmp_path) + b"/in/" + name + b".wav")
    for _ in range(2):
        record = convert(tmp_path / "in", tmp_path / "out")
        assert set(reasons(record)) == {"n" * 251 + ".wav", "\\xef" * 63 + ".wav", "\\xef" * 72 + ".wav"}
        assert all("too long" in reason for reason in reasons(record).values())
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {f"{name}.flac" for name in ("a", "n" * 238, "n" * 245, "n" * 250, "\\xef" * 62, "z")}
        assert record.converted + record.skipped == 6
    assert record.skipped == 6


def test_a_path_that_is_too_long_is_one_output_s(convert: Convert, tmp_path: Path) -> None:
    folders = ["d" * 200] * ((4096 - len(str(tmp_path)) - 300) // 201)
    deep = tmp_path / "in" / Path(*folders)
    deep.mkdir(parents=True)
    write(deep / "deep.wav")
    write(tmp_path / "in" / "a.wav")
    output = tmp_path / ("o" * 250) / ("p" * 250)
    for count in (1, 0):
        record = convert(tmp_path / "in", output)
        assert "too long" in reasons(record)["deep.wav"]
        assert (record.converted, record.skipped) == (count, 1 - count)


def test_a_key_that_is_too_long_for_s3_is_one_output_s(convert: Convert, tmp_path: Path, s3_store: Store) -> None:
    (tmp_path / "in").mkdir()
    for name in ("n" * 200, "n"):
        write(tmp_path / "in" / f"{name}.wav")
    prefix = "/".join(["p" * 100] * 9)
    record = convert(tmp_path / "in", s3_store.address(prefix))
    assert "1024 bytes" in reasons(record)["n" * 200 + ".wav"]
    assert [entry.key for entry in s3_store.list()] == [f"{prefix}/n.flac"]


@pytest.mark.parametrize("name", ["take.flac", "Take.FLAC", "take.wav"])
def test_a_folder_of_sources_named_like_an_output_keeps_both(convert: Convert, tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / name).mkdir(parents=True)
    write(tmp_path / "in" / "take.aiff")
    write(tmp_path / "in" / name / "inner.wav")
    record = convert(tmp_path / "in", tmp_path / "out")
    assert (record.converted, record.failed) == (2, ())
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"take.aiff.flac", f"{name}/inner.flac"}
    assert convert(tmp_path / "in", tmp_path / "out").skipped == 2


def test_a_folder_or_a_file_that_is_in_the_way_is_one_output_s(convert: Convert, tmp_path: Path) -> None:
    for name in ("a.wav", "take.wav", "deep/b.wav", "deep/c.wav", "z.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / name)
    (tmp_path / "out" / "take.flac" / "of the user").mkdir(parents=True)
    (tmp_path / "out" / "deep").write_text("a file")
    for _ in range(2):
        record = convert(tmp_path / "in", tmp_path / "out")
        assert {name: reason.partition(": ")[2] for name, reason in reasons(record).items()} == {
            "take.wav": "a folder has this name",
            "b.wav": "a file exists where a folder is needed",
            "c.wav": "a file exists where a folder is needed",
        }
        assert (tmp_path / "out" / "take.flac" / "of the user").is_dir()
        assert (tmp_path / "out" / "deep").read_text() == "a file"
        assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"a.flac", "deep", "z.flac"}
    (tmp_path / "out" / "deep").unlink()
    assert convert(tmp_path / "in", tmp_path / "out").converted == 2


def test_a_full_disk_ends_the_conversion_and_a_rerun_completes_it(convert: Convert, tmp_path: Path) -> None:
    """All further outputs would be computed for nothing."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "large.wav", samples=1_000_000)
    write(tmp_path / "in" / "small.wav")
    with tmpfs(tmp_path) as disk:
        with pytest.raises(StoreError, match=r"are needed, but \d+ MiB are free") as refused:
            convert(tmp_path / "in", disk / "out")
        assert refused.value.where == str(disk / "out")
        assert not list((disk / "out").iterdir())
        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        assert convert(tmp_path / "in", disk / "out").converted == 2


def test_an_output_that_does_not_fit_is_one_output_s(convert: Convert, tmp_path: Path) -> None:
    """A limit on file sizes stands for a folder that is full."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "long.wav", samples=200_000)
    write(tmp_path / "in" / "short.wav")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        record = convert(tmp_path / "in", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "too large" in reasons(record)["long.wav"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["short.flac"]
    assert (convert(tmp_path / "in", tmp_path / "out")).converted == 1


def test_an_output_folder_that_is_lost_ends_it_all(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What concerns every output is said once, and by no item."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.wav")
    write(tmp_path / "in" / "b.growing")

    @contextmanager
    def open_and_take_away(path: Path) -> Iterator[OpenFile]:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("another program's")
        yield OpenFile(
            RATE, 1, 800, format="x", subtype="PCM_16", tolerance=0, read=lambda size: iter([np.zeros((1, 800), "f")])
        )

    monkeypatch.setitem(DECODERS._entries, "growing", open_and_take_away)
    with pytest.raises(StoreError, match="a file exists where a folder is needed"):
        convert(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("rate", [65_537, 96_001, 312_507, 384_001, 700_000])
def test_a_rate_that_flac_cannot_hold_is_written_as_wav_and_said(convert: Convert, tmp_path: Path, rate: int) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "odd.wav", rate=rate, samples=4000)
    write(tmp_path / "in" / "plain.wav")
    record = convert(tmp_path / "in", tmp_path / "out")
    assert (record.converted, record.failed, record.is_complete) == (2, (), True)
    (item,) = record.other_format
    assert str(rate) in (item.other_format or "")
    assert item.output == str(tmp_path / "out" / "odd.wav")
    written = soundfile.info(tmp_path / "out" / "odd.wav")
    assert (written.format, written.samplerate, written.frames) == ("WAV", rate, 4000)
    assert (tmp_path / "out" / "plain.flac").exists()
    again = convert(tmp_path / "in", tmp_path / "out")
    assert (again.converted, again.skipped, again.other_format) == (0, 2, record.other_format)
    (tmp_path / "out" / "odd.wav").unlink()
    assert convert(tmp_path / "in", tmp_path / "out").converted == 1


def test_a_wav_file_in_the_place_of_flac_replaces_nothing_that_is_protected(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write(tmp_path / "in" / "odd.wav", rate=384_001, samples=4000)
    write(tmp_path / "in" / "plain.wav")
    for name in ("odd.wav", "plain.wav"):
        (tmp_path / "out" / name).write_bytes(b"somebody's recording")
    record = convert(tmp_path / "in", tmp_path / "out", protected=frozenset({"odd.wav", "plain.wav"}))
    assert record.converted == 1, "plain.flac is next to plain.wav"
    assert "did not write" in reasons(record)["odd.wav"]
    assert "overwrite: true" in record.failed[0].fix
    assert {path.read_bytes() for path in (tmp_path / "out").glob("*.wav")} == {b"somebody's recording"}


def test_more_than_eight_channels_are_written_as_wav(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "array.wav", channels=12)
    assert "8 channels" in (convert(tmp_path / "in", tmp_path / "out").other_format[0].other_format or "")
    assert soundfile.info(tmp_path / "out" / "array.wav").channels == 12
    mixed = convert(tmp_path / "in", tmp_path / "mixed", channels=2)
    assert mixed.other_format == ()
    assert soundfile.info(tmp_path / "mixed" / "array.flac").channels == 2


def test_a_flac_file_that_the_user_named_is_not_written_as_wav(convert: Convert, tmp_path: Path) -> None:
    write(tmp_path / "odd.wav", rate=384_001)
    record = convert(tmp_path / "odd.wav", tmp_path / "result.flac")
    assert "in steps of 10 Hz" in reasons(record)["odd.wav"]
    assert ".wav" in record.failed[0].fix
    assert not (tmp_path / "result.flac").exists()
    assert convert(tmp_path / "odd.wav", tmp_path / "result.wav").converted == 1


def test_an_unforeseen_error_is_one_file_s(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "loud", "z"):
        write(tmp_path / "in" / f"{name}.wav")
    soundfile.write(tmp_path / "in" / "loud.wav", np.full(800, 0.95), RATE)
    record = convert(tmp_path / "in", tmp_path / "out", kind="fussy")
    assert record.converted == 2
    assert "too loud" in reasons(record)["loud.wav"]
