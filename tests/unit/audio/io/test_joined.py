"""Recordings joined by ``cat`` are all read, in every container that tells where it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tests.built_containers import CONTAINERS, Built, expected, make_payload
from tests.decoding import ID3V2, decode
from tests.unit.audio.io.generated import pcm16, sound, write


def built(container: str, samples: int, *, rate: int = 44100, channels: int = 2, seed: int = 0) -> Built:
    return Built(container, "s16", rate, make_payload(np.random.default_rng(seed), "s16", samples, channels))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("samples", [(3000, 3000), (2001, 4444, 3001)])
def test_containers(tmp_path, container, samples):
    parts = [built(container, count, seed=number) for number, count in enumerate(samples)]
    (tmp_path / "joined").write_bytes(b"".join(part.build() for part in parts))
    decoded, error, notes = decode(tmp_path / "joined")
    assert error is None
    assert notes == (f"{len(parts)} recordings are joined in the file; all are used",)
    np.testing.assert_array_equal(decoded, np.concatenate([expected(part.payload, "s16") for part in parts], axis=1))


@pytest.mark.parametrize("container", ["wav", "aiff", "caf", "au"])
def test_another_rate_and_channel_count(tmp_path, container):
    first = built(container, 4410)
    (tmp_path / "joined").write_bytes(first.build() + built(container, 2205, rate=22050, channels=1).build())
    decoded, error, notes = decode(tmp_path / "joined")
    assert error is None
    assert "parts at 22050 Hz with 1 channel are converted to 44100 Hz with 2 channels" in notes
    assert decoded.shape == (2, 8820)
    np.testing.assert_array_equal(decoded[:, :4410], expected(first.payload, "s16"))


@pytest.mark.parametrize("container", ["wav", "rf64", "w64", "aiff", "caf", "au"])
def test_a_truncated_last_one_is_named(tmp_path, container):
    parts = [built(container, 5000), built(container, 5000, seed=1)]
    (tmp_path / "joined").write_bytes(b"".join(part.build() for part in parts)[:-8001])
    decoded, error, _ = decode(tmp_path / "joined")
    assert error is not None
    assert error.startswith("part 2 of 2 (from 0.113 s) is truncated")
    whole = np.concatenate([expected(part.payload, "s16") for part in parts], axis=1)
    assert decoded.shape[1] >= 7900
    np.testing.assert_array_equal(decoded, whole[:, : decoded.shape[1]])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("missing", [4, 2222, 19_000])
def test_a_truncated_first_one_is_named_and_ends_where_the_next_begins(tmp_path, container, missing):
    first, second = built(container, 5000), built(container, 4321, seed=1)
    (tmp_path / "joined").write_bytes(first.build()[:-missing] + second.build())
    decoded, error, _ = decode(tmp_path / "joined")
    assert error is not None
    assert error.startswith("part 1 of 2 (from 0.000 s) is truncated")
    kept = (20_000 - missing) // 4
    whole = [expected(first.payload, "s16")[:, :kept], expected(second.payload, "s16")]
    np.testing.assert_array_equal(decoded, np.concatenate(whole, axis=1))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("size", [0, 4000])
def test_the_first_one_has_a_wrong_size(tmp_path, container, size):
    first, second = replace(built(container, 5000), size=lambda right: size, outer=lambda right: size), built(container, 4321)
    if container == "aiff":
        first = replace(first, frames=lambda right: 0)
    (tmp_path / "joined").write_bytes(first.build() + second.build())
    decoded, error, _ = decode(tmp_path / "joined")
    assert error is None
    np.testing.assert_array_equal(decoded, np.concatenate([expected(part.payload, "s16") for part in (first, second)], axis=1))


OLD = [
    ("NIST", "PCM_16", 44100),
    ("AVR", "PCM_16", 44100),
    ("WVE", "ALAW", 8000),
    ("VOC", "PCM_16", 44100),
    ("PVF", "PCM_16", 44100),
    ("IRCAM", "PCM_16", 44100),
    ("PAF", "PCM_16", 44100),
    ("MPC2K", "PCM_16", 44100),
    ("XI", "DPCM_16", 44100),
    ("MAT4", "PCM_16", 44100),
    ("MAT5", "PCM_16", 44100),
]


@pytest.mark.parametrize(("kind", "subtype", "rate"), OLD)
def test_old_formats(tmp_path, kind, subtype, rate):
    one = tmp_path / "one"
    soundfile.write(one, sound(5000, 1, rate).T, rate, format=kind, subtype=subtype)
    whole, _, _ = decode(one)
    assert whole.shape == (1, 5000)
    (tmp_path / "joined").write_bytes(one.read_bytes() * 2)
    decoded, error, _ = decode(tmp_path / "joined")
    assert error is None
    np.testing.assert_array_equal(decoded, np.tile(whole, 2))


@pytest.mark.parametrize("seconds", [(1, 1), (3, 1), (1, 3), (2, 2, 2), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("between", [b"", ID3V2])
def test_flac(tmp_path, seconds, between):
    takes = [sound(44100 * count + number, 2) for number, count in enumerate(seconds)]
    takes = [takes[0]] * len(seconds) if len(set(seconds)) == 1 else takes  # the same numbers of frames
    files = []
    for take in takes:
        soundfile.write(tmp_path / "one.flac", np.frombuffer(pcm16(take), "<i2").reshape(-1, 2), 44100)
        files.append((tmp_path / "one.flac").read_bytes())
    (tmp_path / "joined.flac").write_bytes(between.join(files))
    decoded, error, notes = decode(tmp_path / "joined.flac")
    assert error is None
    assert f"{len(files)} recordings are joined in the file; all are used" in notes
    whole = np.concatenate([np.frombuffer(pcm16(take), "<i2").reshape(-1, 2).T / 32768 for take in takes], axis=1)
    np.testing.assert_array_equal(decoded, whole.astype(np.float32))


def test_flac_of_other_formats(tmp_path):
    soundfile.write(tmp_path / "one.flac", sound(44100, 2).T, 44100)
    soundfile.write(tmp_path / "two.flac", sound(22050, 1, 22050).T, 22050)
    (tmp_path / "joined.flac").write_bytes((tmp_path / "one.flac").read_bytes() + (tmp_path / "two.flac").read_bytes())
    decoded, error, _ = decode(tmp_path / "joined.flac")
    assert error is None
    assert decoded.shape == (2, 88200)


COMPRESSED = [
    ("aac", ".m4a"),
    ("alac", ".m4a"),
    ("pcm_s16le", ".mov"),
    ("pcm_s16le", ".avi"),
    ("flac", ".mka"),
    ("wavpack", ".wv"),
    ("tta", ".tta"),
    ("wmav2", ".wma"),
    ("libmp3lame", ".flv"),
]


@pytest.mark.parametrize(("codec", "suffix"), COMPRESSED)
def test_compressed(tmp_path, codec, suffix):
    one = write(tmp_path / f"one{suffix}", sound(30000, 2), 44100, codec)
    whole, _, _ = decode(one)
    (tmp_path / f"joined{suffix}").write_bytes(one.read_bytes() * 2)
    decoded, error, notes = decode(tmp_path / f"joined{suffix}")
    assert error is None
    assert notes == ("2 recordings are joined in the file; all are used",)
    np.testing.assert_array_equal(decoded, np.tile(whole, 2))


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", ".avi"), ("pcm_s16le", ".mka"), ("wavpack", ".wv")])
def test_a_truncated_compressed_one_is_named(tmp_path, codec, suffix):
    one = write(tmp_path / f"one{suffix}", sound(70_000, 2), 44100, codec)
    whole, _, _ = decode(one)
    data = one.read_bytes()
    (tmp_path / f"joined{suffix}").write_bytes(data[: len(data) * 2 // 3] + data)
    decoded, error, _ = decode(tmp_path / f"joined{suffix}")
    assert error is not None
    assert error.startswith("part 1 of 2 (from 0.000 s) is ")
    first = decoded.shape[1] - 70_000
    assert 22_000 < first < 47_000
    np.testing.assert_array_equal(decoded, np.concatenate([whole[:, :first], whole], axis=1))
