"""Sound that is missing inside a stream is named with its place and its seconds, and all others are used."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.decoding import decode
from tests.unit.audio.io.generated import KINDS, sound, write, write_kind


def flv_tags(data: bytes) -> list[bytes]:
    """The head of an FLV file, and its tags with the 4 bytes behind each."""
    found, place = [data[:13]], 13
    while place < len(data):
        stop = place + 15 + int.from_bytes(data[place + 1 : place + 4], "big")
        found.append(data[place:stop])
        place = stop
    return found


def lost_seconds(error: str | None) -> tuple[float, float]:
    """Where sound is missing, and how much, as the error says."""
    assert error is not None
    found = re.match(
        r"damaged at (\d+\.\d+) s: (?:packets are incomplete or unreadable \(\d+\) and )?(\d+\.\d+) s are missing", error
    )
    assert found is not None, error
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_flv(tmp_path, lost):
    path = write_kind(tmp_path / "take", sound(3 * 44100, 2), 44100, KINDS["flv"])
    tags = flv_tags(path.read_bytes())
    assert len(tags) > 110
    path.write_bytes(b"".join([*tags[:50], *tags[50 + lost :]]))
    decoded, error, _ = decode(path)
    place, seconds = lost_seconds(error)
    assert place == pytest.approx(48 * 1152 / 44100, abs=0.06)
    assert seconds == pytest.approx(lost * 1152 / 44100, abs=0.002)
    assert decoded.shape[1] == pytest.approx(3 * 44100 + 2000 - 1152 * lost, abs=1300)


@pytest.mark.parametrize(("codec", "frame"), [("aac", 1024), ("mp2", 1152), ("ac3", 1536)])
def test_transport_stream(tmp_path, codec, frame):
    path = write(tmp_path / "take.mts", sound(5 * 48000, 2, 48000), 48000, codec, "-f", "mpegts")
    data = path.read_bytes()
    whole, error, _ = decode(path)
    assert error is None
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 100 * 188 :])
    decoded, error, _ = decode(path)
    _, seconds = lost_seconds(error)
    missing = whole.shape[1] - decoded.shape[1]
    assert missing % frame == 0
    assert missing > 0
    assert seconds == pytest.approx(missing / 48000, abs=0.1)


@pytest.mark.parametrize("name", ["wavpack", "tta", "mka flac"])
def test_a_damaged_packet_does_not_cost_what_follows(tmp_path, name):
    path = write_kind(tmp_path / "take", sound(5 * 44100, 2), 44100, KINDS[name])
    data = bytearray(path.read_bytes())
    whole, _, _ = decode(path)
    place = len(data) // 2
    data[place : place + 8] = bytes(value ^ 0x5A for value in data[place : place + 8])
    path.write_bytes(data)
    decoded, error, _ = decode(path)
    assert error is not None
    assert error.startswith("damaged at ")
    assert 3.5 * 44100 < decoded.shape[1] < 5 * 44100
    np.testing.assert_array_equal(decoded[:, -44100:], whole[:, -44100:])


@pytest.mark.parametrize("name", ["avi pcm", "avi mp3"])
def test_avi(tmp_path, name):
    path = write_kind(tmp_path / "take", sound(5 * 44100, 2), 44100, KINDS[name])
    data = bytearray(path.read_bytes())
    whole, error, notes = decode(path)
    assert (error, notes) == (None, ())
    place = data.index(b"00wb", len(data) // 2)
    data[place : place + 8] = bytes(8)
    path.write_bytes(data)
    decoded, error, _ = decode(path)
    assert error is not None
    assert error.startswith(f"damaged: its chunks are broken at byte {place}; it ends after ")
    assert 4.8 * 44100 < decoded.shape[1] < whole.shape[1]
