"""Streams that lack their last bytes are named, whatever the decoder says."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from rave_dist.audio.io.stream_ends import stream_sound
from tests.decoding import decode
from tests.unit.audio.io.generated import KINDS, Kind, sound, write_kind


@pytest.mark.parametrize("name", ["wavpack", "tta", "wma", "flv", "mpegts", "mpeg"])
@pytest.mark.parametrize("missing", [200, 3000])
def test_cut(tmp_path, name, missing):
    kind = Kind(".mpg", "mp2", options=("-f", "mpeg")) if name == "mpeg" else KINDS[name]
    rate = kind.rates[-1]
    path = write_kind(tmp_path / "take", sound(2 * rate, 2, rate), rate, kind)
    whole, error, notes = decode(path)
    assert (error, notes) == (None, ())
    path.write_bytes(path.read_bytes()[:-missing])
    decoded, error, _ = decode(path)
    assert error is not None
    assert decoded.shape[1] > 0.45 * whole.shape[1]
    np.testing.assert_array_equal(decoded[:, : rate // 2], whole[:, : rate // 2])


def test_a_head_that_claims_billions_of_frames_costs_no_memory(tmp_path):
    (tmp_path / "claim.tta").write_bytes(b"TTA1" + struct.pack("<HHHII", 1, 1, 16, 1, 2**32 - 1) + b"\x01" * 4000)
    tracemalloc.start()
    try:
        with open(tmp_path / "claim.tta", "rb") as file:
            found = stream_sound(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.is_cut


@pytest.mark.parametrize("name", ["wavpack", "tta", "alac", "mka flac", "mka pcm"])
def test_lossless_encodings_have_no_tolerance(tmp_path, name):
    """A second less would be found by any tolerance; the last packet alone is shorter than the one for lossy encodings."""
    kind = KINDS[name]
    path = write_kind(tmp_path / "take", sound(2 * 44100 + 600, 1), 44100, kind)
    data = path.read_bytes()
    whole, error, _ = decode(path)
    assert (error, whole.shape[1]) == (None, 2 * 44100 + 600)
    if name == "wavpack":
        path.write_bytes(data[: data.rfind(b"wvpk")])
    else:
        path.write_bytes(data[:-200])
    decoded, error, _ = decode(path)
    assert error is not None or decoded.shape[1] == whole.shape[1]
