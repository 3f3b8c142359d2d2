"""A recording that lacks its last bytes is named, and all that is left of it is used."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
import soundfile

from tests.decoding import decode
from tests.unit.audio.io.generated import KINDS, ogg_pages, sound, write, write_kind

RATE = 44100


@pytest.mark.parametrize("missing", [1, 2, 3, 50])
@pytest.mark.parametrize("name", ["mp3", "mp3 without xing", "mp2", "ac3", "eac3", "ogg flac", "vorbis", "opus"])
def test_an_incomplete_last_frame_is_named(tmp_path, name, missing):
    kind = KINDS[name]
    rate = kind.rates[-1]
    path = write_kind(tmp_path / "take", sound(2 * rate, 2, rate), rate, kind)
    path.write_bytes(path.read_bytes()[:-missing])
    decoded, error, _ = decode(path)
    assert error is not None
    assert decoded.shape[1] > rate * 0.9


@pytest.mark.parametrize("missing", [1, 3, 100])
def test_flac_keeps_what_is_before_the_last_frames(tmp_path, missing):
    samples = np.random.default_rng(0).integers(-9000, 9000, (60_430, 2)).astype(np.int16)
    soundfile.write(tmp_path / "take.flac", samples, RATE)
    data = (tmp_path / "take.flac").read_bytes()
    (tmp_path / "take.flac").write_bytes(data[:-missing])
    decoded, error, _ = decode(tmp_path / "take.flac")
    assert error is not None
    assert "of 1.370 s" in error
    assert decoded.shape[1] >= 60_430 - 3 * 4096
    np.testing.assert_array_equal(decoded, (samples[: decoded.shape[1]].T / 32768).astype(np.float32))


OLD = [
    ("PVF", "PCM_16", 4),
    ("IRCAM", "PCM_16", 4),
    ("IRCAM", "FLOAT", 8),
    ("PAF", "PCM_16", 4),
    ("MAT4", "PCM_16", 4),
    ("MAT4", "FLOAT", 8),
    ("MAT5", "PCM_16", 4),
    ("MAT5", "FLOAT", 8),
]


@pytest.mark.parametrize(("kind", "subtype", "width"), OLD)
@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_old_formats_without_or_with_a_length(tmp_path, kind, subtype, width, endian):
    path = tmp_path / "take"
    try:
        soundfile.write(path, sound(10_000, 2).T, RATE, format=kind, subtype=subtype, endian=endian)
    except soundfile.LibsndfileError:
        soundfile.write(path, sound(10_000, 2).T, RATE, format=kind, subtype=subtype)
    whole, error, _ = decode(path)
    assert (error, whole.shape) == (None, (2, 10_000))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    decoded, error, _ = decode(path)
    assert error == "truncated: the last 1 of 10000 samples are missing"
    np.testing.assert_array_equal(decoded, whole[:, :9999])
    path.write_bytes(data[: -4000 * width])
    decoded, error, _ = decode(path)
    assert error == ("truncated: only 0.136 s of 0.227 s can be read" if kind.startswith("MAT") else None)
    np.testing.assert_array_equal(decoded, whole[:, : decoded.shape[1]])


def test_a_damaged_page_is_named(tmp_path):
    path = write(tmp_path / "take.ogg", sound(3 * RATE, 2), RATE, "libvorbis", "-page_duration", "200000")
    pages = ogg_pages(path.read_bytes())
    place = struct.unpack_from("<q", pages[5], 6)[0] / RATE
    damaged = bytearray(pages[6])
    damaged[-20] ^= 0x55
    for page in (bytes(damaged), pages[6][:-20], pages[6][:200] + bytes(len(pages[6]) - 200)):
        path.write_bytes(b"".join([*pages[:6], page, *pages[7:]]))
        _, error, _ = decode(path)
        assert error is not None
        assert "pages are missing or damaged at" in error or "truncated" in error
    path.write_bytes(b"".join([*pages[:6], bytes(damaged), *pages[7:]]))
    assert decode(path)[1] == f"the recording is damaged: pages are missing or damaged at {place:.3f} s"


def test_a_stream_without_its_end_is_pointed_out(tmp_path):
    path = write(tmp_path / "take.ogg", sound(3 * RATE, 2), RATE, "libvorbis", "-page_duration", "200000")
    pages = ogg_pages(path.read_bytes())
    assert decode(path)[2] == ()
    path.write_bytes(b"".join(pages[:-2]))
    decoded, error, notes = decode(path)
    assert error is None
    assert decoded.shape[1] == struct.unpack_from("<q", pages[-3], 6)[0]
    assert notes == ("a stream has no end: its recording or copying may have been interrupted",)


def test_a_matroska_file_that_ends_in_its_clusters_is_named(tmp_path):
    path = write(tmp_path / "take.mka", sound(3 * RATE, 2), RATE, "pcm_s16le")
    data = path.read_bytes()
    whole, _, _ = decode(path)
    path.write_bytes(data[:-3])  # of the index
    decoded, error, _ = decode(path)
    assert error is None
    np.testing.assert_array_equal(decoded, whole)
    with av.open(str(path)) as container:
        packet = next(container.demux(audio=0)).size // 4  # of stereo samples of 16 bits; how many depends on FFmpeg's version
    path.write_bytes(data[: len(data) - 5000])
    decoded, error, _ = decode(path)
    assert error is not None
    np.testing.assert_array_equal(decoded, whole[:, : decoded.shape[1]])
    assert decoded.shape[1] >= 3 * RATE - 5000 // 4 - packet, "only what was cut, and the rest of its packet"
