"""An MP4 is exactly as long as its edit list, its tags and its last packet say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.types import Audio
from tests.unit.audio.io.generated import box, edit_list, find_box, replace_box, sound, write

RATE = 44100
SAMPLES = 3 * RATE
DELAY = {"alac": 0, "pcm_s16le": 0, "aac": 1024}
SUFFIX = {"alac": ".m4a", "pcm_s16le": ".mov", "aac": ".m4a"}
EDTS = (b"moov", b"trak", b"edts")
UDTA = (b"moov", b"udta")


def decode(path: Path) -> tuple[Audio, int | None]:
    """The audio, and its declared length."""
    with open_audio(path) as decoder:
        return np.concatenate(list(decoder.blocks()), axis=1), decoder.declared_samples


def with_edits(path: Path, *edits: tuple[int, int]) -> Path:
    data = path.read_bytes()
    if b"edts" in data:
        data = replace_box(data, EDTS, edit_list(*edits))
    else:
        track = (b"moov", b"trak", b"tkhd")
        data = replace_box(data, track, box(b"tkhd", find_box(data, track)) + edit_list(*edits))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("codec", ["alac", "pcm_s16le", "aac"])
@pytest.mark.parametrize("samples", [RATE + 317, 3 * RATE // 2 + 64, 12345])
def test_the_last_packet_ends_where_the_audio_does(tmp_path, codec, samples):
    audio = sound(samples, 2)
    decoded, declared = decode(write(tmp_path / f"tone{SUFFIX[codec]}", audio, RATE, codec))
    assert decoded.shape == audio.shape
    assert declared == samples
    assert np.abs(decoded - audio).mean() < (0.01 if codec == "aac" else 2**-15)


@pytest.mark.parametrize("codec", ["alac", "pcm_s16le", "aac"])
@pytest.mark.parametrize(
    ("edits", "used"),
    [
        ([(3000, 0)], [(0, SAMPLES)]),
        ([(1000, 10000)], [(10000, 54100)]),
        ([(500, -1), (1000, 10000)], [(10000, 54100)]),
        ([(500, 1000), (250, -1), (1000, 66150)], [(1000, 23050), (66150, 110250)]),
        ([(2887, 5000)], [(5000, SAMPLES)]),  # 2886.621 ms, rounded by the writer
        ([(0, 5000)], [(5000, SAMPLES)]),
        ([(1000, 66150), (1000, 20000)], [(20000, 64100), (66150, 110250)]),
        ([(1000, 20000), (1000, 42050)], [(20000, 86150)]),
    ],
)
def test_an_edit_list_is_applied_to_the_sample(tmp_path, codec, edits, used):
    audio = sound(SAMPLES, 2)
    shifted = [(length, start if start < 0 else start + DELAY[codec]) for length, start in edits]
    decoded, declared = decode(with_edits(write(tmp_path / f"tone{SUFFIX[codec]}", audio, RATE, codec), *shifted))
    expected = np.concatenate([audio[:, start:stop] for start, stop in used], axis=1)
    assert decoded.shape == expected.shape
    assert declared == expected.shape[1]
    assert np.abs(decoded - expected).mean() < (0.01 if codec == "aac" else 2**-15)


def test_what_an_edit_list_leaves_out_is_named(tmp_path):
    path = with_edits(write(tmp_path / "tone.m4a", sound(SAMPLES), RATE, "alac"), (1000, 0))
    with open_audio(path) as decoder:
        assert decoder.notes == ("its edit list leaves out 2.000 s",)
    with open_audio(with_edits(path, (1500, RATE), (1000, 0), (500, 0))) as decoder:
        assert decoder.notes == (
            "its edit list repeats or reorders parts, which are read once and in the order of the recording",
            "its edit list leaves out 0.500 s",
        )


def test_a_late_start_changes_nothing(tmp_path):
    audio = sound(SAMPLES, 2)
    path = write(tmp_path / "late.mov", audio, RATE, "pcm_s16le", "-output_ts_offset", "0.5")
    assert struct.unpack_from(">i", find_box(path.read_bytes(), (b"moov", b"trak", b"edts", b"elst")), 12) == (-1,)
    decoded, _ = decode(path)
    assert np.abs(decoded - audio).max() <= 2**-15


def test_fragments_end_where_the_audio_does(tmp_path):
    audio = sound(66214, 2)
    options = ("-movflags", "+frag_keyframe+delay_moov", "-frag_duration", "400000")
    decoded, _ = decode(write(tmp_path / "tone.mp4", audio, RATE, "aac", *options))
    assert decoded.shape == audio.shape
    assert np.abs(decoded - audio).mean() < 0.01


@pytest.mark.parametrize("edited", [False, True])
def test_itunes_gapless_tag(tmp_path, edited):
    audio = sound(66214, 2)
    path = write(tmp_path / "tone.m4a", audio, RATE, "aac", *(() if edited else ("-use_editlist", "0")))
    numbers = f" 00000000 {DELAY['aac']:08X} 00000000 {audio.shape[1]:016X} 00000000".encode()
    tag = b"".join(
        box(name, bytes(4) + content) for name, content in [(b"mean", b"com.apple.iTunes"), (b"name", b"iTunSMPB")]
    ) + box(b"data", struct.pack(">II", 1, 0) + numbers)
    data = path.read_bytes()
    handler = box(b"hdlr", struct.pack(">II4s", 0, 0, b"mdir") + bytes(13))
    tags = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", box(b"----", tag))))
    path.write_bytes(replace_box(data, UDTA, tags))
    decoded, _ = decode(path)
    assert decoded.shape == audio.shape
    assert np.abs(decoded - audio).mean() < 0.01
