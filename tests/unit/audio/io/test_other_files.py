"""What is not a recording is called by its name; a damaged recording is not."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from rave_dist.audio.io.open import probe
from rave_dist.errors import AudioError


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(buffer, format=kind)
    return buffer.getvalue()


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("take.txt", "text")
    return buffer.getvalue()


FILES = {
    "a JPEG picture": lambda: _picture("jpeg"),
    "a PNG picture": lambda: _picture("png"),
    "a TIFF picture": lambda: _picture("tiff"),
    "a WebP picture": lambda: _picture("webp"),
    "a PDF document": lambda: _picture("pdf"),
    "an XML document": lambda: _picture("svg"),
    "a ZIP archive": _archive,
    "a gzip archive": lambda: gzip.compress(b"take"),
    "a web page": lambda: b"\n<!DOCTYPE html><html><body>404</body></html>" * 30,
    "a MIDI file": lambda: b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
    "Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "git-annex": lambda: b"/annex/objects/SHA256E-s5--00.wav\n",
    "a file of zeros": lambda: bytes(5000),
    "a text": lambda: "Aufnahmen: große Trommel\n".encode() * 60,
}


@pytest.mark.parametrize("kind", FILES)
def test_it_is_called_by_its_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "take.wav"
    path.write_bytes(FILES[kind]())
    with pytest.raises(AudioError) as caught:
        probe(path)
    assert kind in caught.value.what
    assert caught.value.where == str(path)
    assert "intact copy" not in caught.value.fix


def test_damage_and_noise_are_not_taken_for_something_else(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "take.flac", np.zeros((5000, 1)), 44100)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "take.flac").read_bytes()[:30])
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(20_000))
    for name in ("cut.flac", "noise.mp3"):
        with pytest.raises(AudioError) as caught:
            probe(tmp_path / name)
        assert "intact copy" in caught.value.fix
