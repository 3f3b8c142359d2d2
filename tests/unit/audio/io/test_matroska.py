"""Matroska files whose duration is not that of their sound, or is not declared."""

from __future__ import annotations

import numpy as np
import pytest

from tests.decoding import decode
from tests.unit.audio.io.generated import sound, write

RATE = 44100


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
@pytest.mark.parametrize(
    "options",
    [("-output_ts_offset", "0.5"), ("-live", "1", "-f", "matroska")],
    ids=["starts late", "live"],
)
def test_all_of_it_is_read_and_nothing_is_missing(tmp_path, codec, options):
    audio = sound(2 * RATE + 600, 2)
    path = write(tmp_path / "take.mka", audio, RATE, codec, *options)
    decoded, error, notes = decode(path)
    assert (error, notes) == (None, ())
    assert np.abs(decoded - audio).max() <= 2**-15
