"""FLAC files of unknown or wrong length, with tags or other bytes around them, cut, or with a wrong MD5."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoding import APE_TAG, ID3V1, ID3V2, by_ffmpeg, command, decode
from hypothesis import given, settings
from hypothesis import strategies as st

INFO_END = 42


def with_total(flac: bytes, samples: int) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & 0xFFFFFFFF) + flac[26:]


def encode(samples: np.ndarray, rate: int, subtype: str) -> bytes:
    """[samples, channels] of int32, high bits."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype=subtype)
    return file.getvalue()


def tone(samples: int, channels: int, bits: int) -> np.ndarray:
    """A tone with some noise, as int32 with ``bits`` bits."""
    random = np.random.default_rng(samples)
    wave = 0.5 * np.sin(np.arange(samples)[:, None] * 0.05 * (1 + np.arange(channels))) + random.uniform(
        -0.1, 0.1, (samples, channels)
    )
    return np.round(wave * 2 ** (bits - 1)).astype(np.int32) << (32 - bits)


def as_float(samples: np.ndarray) -> np.ndarray:
    return samples.T.astype(np.float32) / np.float32(2**31)


@st.composite
def flacs(draw: st.DrawFn) -> tuple[bytes, np.ndarray]:
    bits = draw(st.sampled_from([16, 24]))
    samples = tone(draw(st.integers(1, 30_000)), draw(st.sampled_from([1, 2, 6, 8])), bits)
    rate = draw(st.sampled_from([8000, 11025, 44100, 48000, 96000, 12345, 200_000, 655_350]))
    return encode(samples, rate, f"PCM_{bits}"), samples


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flac") / "take.flac"


@settings(max_examples=60, deadline=None)
@given(
    flac=flacs(),
    total=st.sampled_from(["right", "unknown", "less", "more"]),
    before=st.sampled_from([b"", ID3V2]),
    after=st.sampled_from([b"", ID3V1, APE_TAG, APE_TAG + ID3V1, bytes(5000), b"\xff\xf8" * 300, bytes(range(256)) * 30]),
    wrong_md5=st.booleans(),
)
def test_every_sample_is_used(path, flac, total, before, after, wrong_md5):
    data, samples = flac
    count = {"right": len(samples), "unknown": 0, "less": max(1, len(samples) // 3), "more": 3 * len(samples)}[total]
    data = with_total(data, count)
    if wrong_md5 and total != "more":
        data = data[:26] + bytes(range(16)) + data[INFO_END:]
    path.write_bytes(before + data + after)
    sound, damage, notes = decode(path)
    assert damage is None
    np.testing.assert_array_equal(sound, as_float(samples))
    assert ("declares" in "".join(notes)) == (total == "less" and count < len(samples))


@settings(max_examples=40, deadline=None)
@given(flac=flacs(), known=st.booleans(), part=st.floats(0.3, 0.99))
def test_a_cut_file_is_named_and_gives_what_lies_before(path, flac, known, part):
    data, samples = flac
    path.write_bytes((data if known else with_total(data, 0))[: max(INFO_END, int(part * len(data)))])
    sound, damage, _ = decode(path)
    assert damage is not None
    assert any(word in damage for word in ("truncated", "damaged", "not a readable"))
    left = sound.shape[1]
    assert left < len(samples)
    np.testing.assert_array_equal(sound, as_float(samples)[: len(sound), :left])
    assert left >= part * len(samples) - 2 * 16384 - 4096 * 3


def test_a_file_cut_between_two_frames_is_not_taken_for_one_with_a_wrong_length(path):
    samples = tone(40_000, 2, 16)
    data = encode(samples, 44100, "PCM_16")
    place = data.rfind(b"\xff\xf8", 0, data.rfind(b"\xff\xf8"))
    while data[place + 2] >> 4 != data[data.find(b"\xff\xf8") + 2] >> 4:
        place = data.rfind(b"\xff\xf8", 0, place)
    path.write_bytes(data[:place])
    sound, damage, _ = decode(path)
    assert damage is not None
    assert damage.startswith("truncated: only")
    assert damage.endswith("of 0.907 s can be read")
    assert sound.shape[1] % 4096 == 0
    np.testing.assert_array_equal(sound, as_float(samples)[:, : sound.shape[1]])


@pytest.mark.parametrize("arguments", [["-frame_size", "1152"], ["-compression_level", "12", "-lpc_type", "cholesky"]])
def test_what_ffmpeg_writes_into_a_pipe(tmp_path, arguments):
    samples = tone(50_000, 2, 16)
    soundfile.write(tmp_path / "take.wav", samples, 44100, subtype="PCM_16")
    run = [command("ffmpeg"), "-v", "error", "-i", str(tmp_path / "take.wav"), *arguments, "-f", "flac", "-"]
    data = subprocess.run(run, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    (tmp_path / "take.flac").write_bytes(data)
    assert int.from_bytes(data[21:26], "big") & 2**36 - 1 == 0, "of unknown length"
    sound, damage, notes = decode(tmp_path / "take.flac")
    assert (damage, notes) == (None, ())
    np.testing.assert_array_equal(sound, as_float(samples))
    np.testing.assert_array_equal(by_ffmpeg(tmp_path / "take.flac", 2), sound)


@pytest.mark.parametrize("rate", [11025, 96000])
def test_all_frames_before_damage_are_read(tmp_path, rate):
    samples = np.random.default_rng(0).integers(-9000, 9000, (100_000, 1)).astype(np.int16)
    path = tmp_path / "take.flac"
    soundfile.write(path, samples, rate)
    data = bytearray(path.read_bytes())
    place = len(data) * 7 // 10
    data[place : place + 8] = bytes(value ^ 0x5A for value in data[place : place + 8])
    path.write_bytes(data)
    decoded, error, _ = decode(path)
    assert error is not None
    assert 70_000 - 2 * 4096 < decoded.shape[1] < 70_000
    np.testing.assert_array_equal(decoded, (samples[: decoded.shape[1]].T / 32768).astype(np.float32))
