"""Tags, padding and stray bytes before and behind recordings of every kind are no sound and no damage."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from tests.decoding import APE_TAG, ID3V1, ID3V2, decode
from tests.unit.audio.io.generated import KINDS, sound, write_kind

NAMES = ("m4a", "alac", "mov pcm", "mka flac", "webm opus", "avi pcm", "wavpack", "tta", "ac3", "eac3", "adts", "mp2", "mp3")
NAMES = (*NAMES, "mp3 without xing", "vorbis", "opus", "ogg flac", "wma", "wav ima", "wav ms")


@pytest.mark.parametrize("name", NAMES)
def test_tags(tmp_path, name):
    kind = KINDS[name]
    path = write_kind(tmp_path / "take", sound(kind.rates[-1], kind.channels[-1], kind.rates[-1]), kind.rates[-1], kind)
    data = path.read_bytes()
    whole, _, _ = decode(path)
    for before, behind in ((ID3V2, b""), (b"", ID3V1), (b"", APE_TAG), (ID3V2, APE_TAG + ID3V1)):
        path.write_bytes(before + data + behind)
        decoded, error, _ = decode(path)
        assert error is None
        np.testing.assert_array_equal(decoded, whole)


WAVES = ("wav mp3", "wav ima", "wav ms")
STREAMS = ("ac3", "eac3", "adts", "wavpack", "tta", "wma", "flv", "mpegts")


@pytest.mark.parametrize("name", ["m4a", "alac", "mp2", "mp3", "mp3 without xing", "mka flac", *WAVES, *STREAMS])
def test_padding(tmp_path, name):
    kind = KINDS[name]
    path = write_kind(tmp_path / "take", sound(kind.rates[-1], kind.channels[-1], kind.rates[-1]), kind.rates[-1], kind)
    whole, _, _ = decode(path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    decoded, error, _ = decode(path)
    assert error is None
    np.testing.assert_array_equal(decoded, whole)


@pytest.mark.parametrize("name", ["m4a", "mp3", "mp3 without xing", *STREAMS])
def test_stray_bytes_are_named(tmp_path, name):
    kind = KINDS[name]
    rate = kind.rates[-1]
    path = write_kind(tmp_path / "take", sound(rate, 2, rate), rate, kind)
    whole, _, _ = decode(path)
    stray = b"\r\n<!-- served by a host -->\r\n"
    path.write_bytes(path.read_bytes() + stray)
    decoded, error, notes = decode(path)
    assert error is None
    assert notes == (f"{len(stray)} bytes behind the end of the sound are not used",)
    np.testing.assert_array_equal(decoded, whole)


OLD = [("PVF", "PCM_16"), ("IRCAM", "FLOAT"), ("PAF", "PCM_16"), ("MAT4", "PCM_16"), ("MAT5", "FLOAT")]


@pytest.mark.parametrize(("kind", "subtype"), OLD)
def test_tags_of_old_formats(tmp_path, kind, subtype):
    path = tmp_path / "take"
    soundfile.write(path, sound(5000, 2).T, 44100, format=kind, subtype=subtype)
    data = path.read_bytes()
    whole, _, _ = decode(path)
    for before, behind in ((ID3V2, b""), (b"", ID3V1), (b"", APE_TAG)):
        path.write_bytes(before + data + behind)
        decoded, error, _ = decode(path)
        assert error is None
        np.testing.assert_array_equal(decoded, whole)
