"""What the decoders open is on the list of audio extensions, and what is on the list is opened."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.decoders import BUILTIN_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from rave_dist.audio.io.ffmpeg import _FORMATS
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import find_sources
from tests.decoding import command

# Pictures, subtitles, fragments and disk images that FFmpeg opens with the same demuxers.
NO_RECORDINGS = {"avif", "heic", "heif", "mks", "mk3d", "mj2", "psp", "ism", "isma", "ismv", "dif"}
# Headerless, or matrices, or in two parts, of which libsndfile needs both.
NOT_BY_CONTENT = {"RAW", "MAT4", "MAT5", "SD2", "HTK"}
SUFFIXES = {"WAVEX": "wav", "SVX": "8svx", "MPC2K": "snd", "NIST": "sph", "IRCAM": "sf"}


def test_every_extension_of_ffmpegs_formats_is_listed() -> None:
    names = {name for fmt in _FORMATS.split(",") for name in av.format.ContainerFormat(fmt, "r").extensions}
    assert {f".{name}" for name in names - NO_RECORDINGS} <= BUILTIN_EXTENSIONS


def test_every_format_of_libsndfile_is_listed() -> None:
    names = {SUFFIXES.get(name, name.lower()) for name in set(soundfile.available_formats()) - NOT_BY_CONTENT}
    assert {f".{name}" for name in names} <= BUILTIN_EXTENSIONS
    assert not BUILTIN_EXTENSIONS & UNSUPPORTED_EXTENSIONS


@pytest.mark.parametrize(
    ("extension", "options"),
    [
        ("rm", ["-c:a", "ac3"]),
        ("ra", ["-c:a", "ac3", "-f", "rm"]),
        ("dts", ["-c:a", "dca", "-strict", "-2"]),
        ("eac3", []),
        ("ec3", ["-f", "eac3"]),
        ("spx", ["-c:a", "libspeex", "-ar", "16000", "-f", "ogg"]),
        ("mlp", ["-strict", "-2"]),
        ("thd", ["-strict", "-2"]),
        ("tta", []),
        ("ast", []),
        ("wtv", []),
        ("nut", []),
        ("vob", []),
        ("m2ts", []),
    ],
)
def test_ffmpegs_formats_are_listed_and_opened(tmp_path: Path, extension: str, options: list[str]) -> None:
    soundfile.write(tmp_path / "in.wav", _tone(), 44_100)
    target = tmp_path / "out" / f"take.{extension.upper()}"
    target.parent.mkdir()
    subprocess.run(
        [command("ffmpeg"), "-v", "error", "-i", tmp_path / "in.wav", *options, tmp_path / f"take.{extension}"],
        check=True,
        timeout=60,
    )
    (tmp_path / f"take.{extension}").rename(target)
    _is_found_and_opened(target)


@pytest.mark.parametrize(
    ("extension", "file_format"),
    [("sph", "NIST"), ("8svx", "SVX"), ("paf", "PAF"), ("pvf", "PVF"), ("sf", "IRCAM"), ("avr", "AVR"), ("rf64", "RF64")],
)
def test_libsndfiles_formats_are_listed_and_opened(tmp_path: Path, extension: str, file_format: str) -> None:
    soundfile.write(tmp_path / f"take.{extension}", _tone(), 44_100, format=file_format, subtype="PCM_16")
    _is_found_and_opened(tmp_path / f"take.{extension}")


def _tone() -> np.ndarray:
    return 0.3 * np.sin(np.arange(44_100) * 0.05)


def _is_found_and_opened(path: Path) -> None:
    (source,) = find_sources([str(path.parent)]).sources
    with open_audio(source.uri) as decoder:
        sound = np.concatenate(list(decoder.blocks()), axis=1)
    seconds = sound.shape[1] / decoder.sample_rate
    assert seconds == pytest.approx(1.0, abs=0.1)
    assert np.abs(sound[0]).max() == pytest.approx(0.3, rel=0.35)


def test_recordings_that_nothing_opens_are_called_that(tmp_path: Path) -> None:
    for name in ("a.wav", "night.WAC", "book.aax"):
        (tmp_path / name).touch()
    passed = find_sources([str(tmp_path)]).passed_over
    assert {entry.extension for entry in passed} == {".wac", ".aax"}
    assert all("not supported" in entry.reason for entry in passed)
