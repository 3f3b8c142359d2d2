"""Formats of old samplers, phones and speech corpora: what the header declares and what the file holds are compared."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import soundfile
from decoding import ID3V1, command, decode

KINDS = [
    ("NIST", "PCM_16", 2),
    ("AVR", "PCM_16", 2),
    ("SVX", "PCM_16", 1),
    ("SVX", "PCM_S8", 1),
    ("MPC2K", "PCM_16", 2),
    ("WVE", "ALAW", 1),
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def file(request, tmp_path):
    """A file, its bytes per sample, its samples and what a decoder gives."""
    kind, subtype, channels = request.param
    path = tmp_path / "take"
    random = np.random.default_rng(0)
    sound = random.integers(-(2**15), 2**15, (10_000, channels)).astype(np.int16)
    rate = 8000 if kind == "WVE" else 44100
    soundfile.write(path, sound, rate, format=kind, subtype=subtype)
    whole = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    assert whole.shape == (channels, 10_000)
    return path, channels * (2 if subtype == "PCM_16" else 1), rate, whole


def test_intact_files_with_tags_or_padding_behind(file):
    path, _, _, whole = file
    data = path.read_bytes()
    for behind in (b"", ID3V1, bytes(1000)):
        path.write_bytes(data + behind)
        sound, damage, notes = decode(path)
        assert (damage, notes) == (None, ())
        np.testing.assert_array_equal(sound, whole)


def test_a_cut_file_is_named(file):
    path, width, rate, whole = file
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 4000 * width])
    sound, damage, _ = decode(path)
    left = sound.shape[1]
    assert 5990 <= left <= 6010
    assert damage == f"truncated: only {left / rate:.3f} s of {10_000 / rate:.3f} s can be read"
    np.testing.assert_array_equal(sound, whole[:, :left])


def test_stereo_8svx_is_named(tmp_path):
    soundfile.write(tmp_path / "take.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 2)), 44100)
    subprocess.run([command("sox"), "-V1", tmp_path / "take.wav", tmp_path / "take.8svx"], check=True)
    sound, damage, _ = decode(tmp_path / "take.8svx")
    assert (sound.size, damage) == (0, "8SVX with more than one channel is not supported")


@pytest.mark.parametrize("kind", ["MAT4", "MAT5"])
def test_bytes_behind_a_matrix_are_named(tmp_path, kind):
    path = tmp_path / "tone.mat"
    soundfile.write(path, np.sin(np.arange(5000) / 9), 44100, format=kind, subtype="PCM_16")
    path.write_bytes(path.read_bytes() + bytes(range(1, 200)))
    decoded, error, notes = decode(path)
    assert error is None
    assert decoded.shape == (1, 5000)
    assert [note.split(" ", 1)[1] for note in notes] == ["bytes behind the end of the sound are not used"]
