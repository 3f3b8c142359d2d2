"""Files that are several recordings in a row are read to their end, and what their headers miscount is used."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from rave_dist.audio.io.open import open_audio
from tests.decoding import APE_TAG, ID3V1, ID3V2, decode
from tests.unit.audio.io.generated import ffmpeg, ogg_pages, sound, write

RATE = 44100
SAMPLES = 2 * RATE + 317


def encoded(folder: Path, codec: str, suffix: str, *options: str, rate: int = RATE, channels: int = 2) -> bytes:
    path = folder / f"{codec}-{rate}{suffix}"
    return write(path, sound(SAMPLES, channels, rate), rate, codec, *options).read_bytes()


def close_to(decoded: np.ndarray, expected: np.ndarray) -> None:
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).mean() < 0.02


JOINED = [
    ("libmp3lame", ".mp3", RATE, ()),
    ("libvorbis", ".ogg", RATE, ()),
    ("libopus", ".opus", 48000, ("-b:a", "96k")),
    ("flac", ".oga", RATE, ()),
]


@pytest.mark.parametrize(("codec", "suffix", "rate", "options"), JOINED)
def test_joined_recordings_are_all_read(tmp_path, codec, suffix, rate, options):
    one = encoded(tmp_path, codec, suffix, *options, rate=rate)
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(one * 3)
    decoded, error, notes = decode(path)
    assert error is None
    assert notes == ("3 recordings are joined in the file; all are used",)
    close_to(decoded, np.tile(sound(SAMPLES, 2, rate), 3))


@pytest.mark.parametrize(("codec", "suffix"), [("libmp3lame", ".mp3"), ("libvorbis", ".ogg"), ("flac", ".oga")])
def test_a_part_of_another_format_is_converted_to_the_first_ones(tmp_path, codec, suffix):
    path = tmp_path / f"joined{suffix}"
    first = encoded(tmp_path, codec, suffix)
    path.write_bytes(first + encoded(tmp_path, codec, suffix, rate=22050, channels=1) + first)
    decoded, error, notes = decode(path)
    assert error is None
    assert "parts at 22050 Hz with 1 channel are converted to 44100 Hz with 2 channels" in notes
    assert decoded.shape == (2, 4 * SAMPLES)
    close_to(decoded[:, :SAMPLES], sound(SAMPLES, 2))
    close_to(decoded[:, SAMPLES : 3 * SAMPLES : 2], np.repeat(sound(SAMPLES, 1, 22050), 2, axis=0))
    close_to(decoded[:, 3 * SAMPLES :], sound(SAMPLES, 2))


def test_tags_between_joined_mp3s_are_not_audio(tmp_path):
    one = encoded(tmp_path, "libmp3lame", ".mp3")
    (tmp_path / "joined.mp3").write_bytes(one + ID3V1 + ID3V2 + one + APE_TAG + ID3V1 + one)
    decoded, error, _ = decode(tmp_path / "joined.mp3")
    assert error is None
    close_to(decoded, np.tile(sound(SAMPLES, 2), 3))


@pytest.mark.parametrize("change", [lambda n: n // 3, lambda n: 3 * n, lambda n: n - 1, lambda n: n + 1, lambda n: 0])
def test_a_wrong_count_of_an_mp3_is_not_believed(tmp_path, change):
    data = bytearray(encoded(tmp_path, "libmp3lame", ".mp3"))
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    data[at : at + 4] = struct.pack(">I", change(struct.unpack_from(">I", data, at)[0]))
    (tmp_path / "counted.mp3").write_bytes(data)
    decoded, error, notes = decode(tmp_path / "counted.mp3")
    assert error is None
    assert "all 2.0" in notes[0]
    close_to(decoded, sound(SAMPLES, 2))


def test_vbri_counts(tmp_path):
    """A VBRI header, as Fraunhofer's encoder writes it, with right and wrong counts."""
    data = encoded(tmp_path, "libmp3lame", ".mp3", "-write_xing", "0", "-b:a", "128k", "-id3v2_version", "0")
    silent = bytearray(data[:4]) + bytes(413)
    for frames in (78, 20, 400):
        header = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 0, 75, len(data) + 417, frames, 0, 1, 2, 1)
        (tmp_path / "vbri.mp3").write_bytes(silent[:36] + header + silent[36 + len(header) :] + data)
        decoded, error, _ = decode(tmp_path / "vbri.mp3")
        assert error is None
        assert decoded.shape[1] == pytest.approx(SAMPLES, abs=3 * 1152)


def test_a_truncated_part_is_named_and_the_rest_read(tmp_path):
    for codec, suffix in (("libmp3lame", ".mp3"), ("libvorbis", ".ogg")):
        options = ("-page_duration", "100000") if suffix == ".ogg" else ()
        one = encoded(tmp_path, codec, suffix, *options)
        path = tmp_path / f"joined{suffix}"
        path.write_bytes(one[: len(one) // 2] + one)
        decoded, error, _ = decode(path)
        assert error is not None
        assert error.startswith("part 1 of 2 (from 0.000 s) is truncated")
        assert SAMPLES * 1.1 < decoded.shape[1] < SAMPLES * 1.8
        close_to(decoded[:, -SAMPLES:], sound(SAMPLES, 2))


@pytest.mark.parametrize(
    ("codec", "suffix", "rate"), [("libvorbis", ".ogg", RATE), ("libopus", ".opus", 48000), ("flac", ".oga", RATE)]
)
def test_missing_pages_are_named(tmp_path, codec, suffix, rate):
    pages = ogg_pages(encoded(tmp_path, codec, suffix, "-page_duration", "200000", rate=rate))
    assert len(pages) > 9
    path = tmp_path / f"holed{suffix}"
    path.write_bytes(b"".join(pages[:6] + pages[8:]))
    _, error, _ = decode(path)
    place = struct.unpack_from("<q", pages[5], 6)[0] / rate
    assert error == f"the recording is damaged: pages are missing or damaged at {place:.3f} s"


@pytest.mark.parametrize(("codec", "suffix"), [("libvorbis", ".ogg"), ("libopus", ".opus")])
def test_a_recording_of_a_broadcast_starts_late(tmp_path, codec, suffix):
    pages = ogg_pages(encoded(tmp_path, codec, suffix, "-page_duration", "200000", rate=48000))
    headers = [page for page in pages if struct.unpack_from("<q", page, 6)[0] == 0]
    path = tmp_path / f"late{suffix}"
    path.write_bytes(b"".join(headers + pages[len(headers) + 3 :]))
    decoded, error, _ = decode(path)
    assert error is None
    close_to(decoded[:, 4800:], sound(SAMPLES, 2, 48000)[:, 4800 - decoded.shape[1] :])


def test_of_multiplexed_streams_the_first_audio_is_read(tmp_path):
    encoded(tmp_path, "libvorbis", ".ogg")
    encoded(tmp_path, "libvorbis", ".ogg", rate=22050, channels=1)
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=2")
    tracks = ("-i", str(tmp_path / "libvorbis-44100.ogg"), "-i", str(tmp_path / "libvorbis-22050.ogg"))
    maps = ("-map", "0", "-map", "1", "-map", "2", "-c:v", "libtheora", "-c:a", "copy")
    ffmpeg(*picture, *tracks, *maps, str(tmp_path / "film.ogv"))
    decoded, error, notes = decode(tmp_path / "film.ogv")
    assert error is None
    assert notes == ("only audio track 1 of 2 is used, not 2 (Vorbis)",)
    close_to(decoded, sound(SAMPLES, 2))


def test_an_mp3_of_half_a_recording_is_not_its_double(tmp_path):
    """Both were read as the same samples, and one was left out as a duplicate."""
    one = encoded(tmp_path, "libmp3lame", ".mp3")
    (tmp_path / "one.mp3").write_bytes(one)
    (tmp_path / "two.mp3").write_bytes(one + one)
    with open_audio(tmp_path / "one.mp3") as first, open_audio(tmp_path / "two.mp3") as second:
        assert (first.declared_samples, second.declared_samples) == (SAMPLES, 2 * SAMPLES)


def test_damage_inside_an_mp3_is_named(tmp_path):
    data = bytearray(encoded(tmp_path, "libmp3lame", ".mp3"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    (tmp_path / "damaged.mp3").write_bytes(data)
    decoded, error, _ = decode(tmp_path / "damaged.mp3")
    assert error is not None
    assert error.startswith("the recording is damaged: ")
    assert SAMPLES - 8 * 1152 < decoded.shape[1] <= SAMPLES


def test_joined_aac_streams_of_other_formats_are_converted(tmp_path):
    first = encoded(tmp_path, "aac", ".aac")
    second = encoded(tmp_path, "aac", ".aac", rate=22050, channels=1)
    (tmp_path / "joined.aac").write_bytes(first + second)
    decoded, error, _ = decode(tmp_path / "joined.aac")
    assert error is None
    assert len(decoded) == 2
    assert 3 * SAMPLES <= decoded.shape[1] < 3 * SAMPLES + 6 * 1024
    close_to(decoded[:, 1024 : 1024 + SAMPLES], sound(SAMPLES, 2))
