"""The last block of ADPCM and GSM is filled up; a WAV's chunk `fact` gives the length."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.decoding import decode
from tests.unit.audio.io.generated import encoders, sound, write

KINDS = [("adpcm_ima_wav", 44100, 2), ("adpcm_ms", 44100, 1), ("libgsm_ms", 8000, 1)]


@pytest.mark.parametrize(("codec", "rate", "channels"), KINDS)
@pytest.mark.parametrize("samples", [12345, 20001])
def test_fact_ends_the_last_block(tmp_path, codec, rate, channels, samples):
    if codec not in encoders():
        pytest.skip(f"FFmpeg's command has no encoder {codec}")
    audio = sound(samples, channels, rate)
    path = write(tmp_path / "tone.wav", audio, rate, codec)
    data = path.read_bytes()
    at = data.index(b"fact") + 8
    filled, _, _ = decode(path)
    assert filled.shape[1] == struct.unpack_from("<I", data, at)[0] >= samples  # FFmpeg counts whole blocks
    path.write_bytes(data[:at] + struct.pack("<I", samples) + data[at + 4 :])
    decoded, error, _ = decode(path)
    assert error is None
    np.testing.assert_array_equal(decoded, filled[:, :samples])


@pytest.mark.parametrize("wrong", [0, 1000, 2**32 - 1])
def test_a_wrong_fact_takes_nothing_away(tmp_path, wrong):
    path = write(tmp_path / "tone.wav", sound(30000), 44100, "adpcm_ima_wav")
    data = path.read_bytes()
    whole, _, _ = decode(path)
    at = data.index(b"fact") + 8
    path.write_bytes(data[:at] + struct.pack("<I", wrong) + data[at + 4 :])
    decoded, error, _ = decode(path)
    assert error is None
    assert decoded.shape[1] >= whole.shape[1]  # newer writers end their last block by `fact`
    np.testing.assert_array_equal(decoded[:, : whole.shape[1]], whole)
