"""Of several audio tracks the default one is read, and the others are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rave_dist.audio.io.open import open_audio
from tests.unit.audio.io.generated import ffmpeg, sound, write

RATE = 44100


def film(tmp_path: Path, name: str, codec: str, *, default: int | None) -> Path:
    """A file with a mono and a stereo track of different lengths."""
    for channels in (1, 2):
        write(tmp_path / f"{channels}.wav", sound(RATE * channels, channels), RATE, "pcm_s16le")
    flags = [word for track in (0, 1) for word in (f"-disposition:a:{track}", "default" if default in (None, track) else "0")]
    inputs = ("-i", str(tmp_path / "1.wav"), "-i", str(tmp_path / "2.wav"), "-map", "0", "-map", "1", "-c:a", codec)
    ffmpeg(*inputs, *flags, "-metadata:s:a:0", "language=eng", str(tmp_path / name))
    return tmp_path / name


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "flac"), ("a.mov", "pcm_s16le"), ("a.m4a", "alac")])
@pytest.mark.parametrize("default", [0, 1, None])
def test_the_default_track_is_read_and_the_other_named(tmp_path, name, codec, default):
    used = default or 0
    with open_audio(film(tmp_path, name, codec, default=default)) as decoder:
        decoded = np.concatenate(list(decoder.blocks()), axis=1)
        assert len(decoder.notes) == 1
        assert decoder.notes[0].startswith(f"only audio track {used + 1} of 2 is used, not {2 - used} (")
        assert f"{codec}, {2 - used} channel" in decoder.notes[0]
    assert np.abs(decoded - sound(RATE * (used + 1), used + 1)).max() <= 2**-15


def test_without_flags_the_first_track_is_read(tmp_path):
    with open_audio(film(tmp_path, "a.avi", "pcm_s16le", default=1)) as decoder:
        assert decoder.channels == 1
        assert decoder.notes == ("only audio track 1 of 2 is used, not 2 (pcm_s16le, 2 channels)",)
