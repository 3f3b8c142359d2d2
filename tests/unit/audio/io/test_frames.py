"""Files of frames alone: what lies between the frames and behind them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.decoding import ID3V2, decode
from tests.unit.audio.io.generated import sound, write

CODECS = [("ac3", ".ac3"), ("eac3", ".eac3"), ("dca", ".dts"), ("aac", ".aac")]


def frames(data: bytes, suffix: str) -> list[bytes]:
    """Divided at every synchronisation; AAC, whose frames may have its bits in them, by the lengths in their headers."""
    if suffix == ".aac":
        found = []
        while data:
            length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5  # ISO/IEC 13818-7, adts_variable_header
            found.append(data[:length])
            data = data[length:]
        return found
    sync = {".ac3": b"\x0b\x77", ".eac3": b"\x0b\x77", ".dts": b"\x7f\xfe\x80\x01"}[suffix]
    return [sync + part for part in data.split(sync)[1:]]


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_bytes_between_frames_are_named_and_not_heard(tmp_path, codec, suffix):
    path = write(tmp_path / f"take{suffix}", sound(2 * 48000, 2, 48000), 48000, codec)
    whole, error, notes = decode(path)
    assert (error, notes) == (None, ())
    parts = frames(path.read_bytes(), suffix)
    path.write_bytes(b"".join([*parts[:20], b"\x55" * 777, *parts[20:]]))
    decoded, error, _ = decode(path)
    assert error is not None
    assert error.startswith("damaged: 777 bytes in it are not audio")
    np.testing.assert_array_equal(decoded, whole)


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
@pytest.mark.parametrize("missing", [1, 40])
def test_an_incomplete_last_frame_is_named_and_not_heard(tmp_path, codec, suffix, missing):
    path = write(tmp_path / f"take{suffix}", sound(2 * 48000, 2, 48000), 48000, codec)
    data = path.read_bytes()
    path.write_bytes(b"".join(frames(data, suffix)[:-1]))
    shorter, error, _ = decode(path)
    assert error is None
    path.write_bytes(data[:-missing])
    decoded, error, _ = decode(path)
    assert error == f"truncated: the file ends after {shorter.shape[1] / 48000:.3f} s, before its audio does"
    np.testing.assert_array_equal(decoded, shorter)


def test_tags_between_the_segments_of_a_stream_are_no_damage(tmp_path):
    path = write(tmp_path / "take.aac", sound(2 * 48000, 2, 48000), 48000, "aac")
    whole, _, _ = decode(path)
    parts = frames(path.read_bytes(), ".aac")
    path.write_bytes(b"".join([ID3V2, *parts[:20], ID3V2, *parts[20:]]))
    decoded, error, notes = decode(path)
    assert (error, notes) == (None, ())
    np.testing.assert_array_equal(decoded, whole)
