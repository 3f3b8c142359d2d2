"""Excerpts for comparison: the same moment of recording and result, at the same loudness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.metrics.loudness import loudness
from rave_dist.errors import RaveDistError
from rave_dist.reports.excerpts import EXCERPT_SECONDS, excerpt, loudest_start, match_levels, played


def noise(path: Path, seconds: float, rate: int, *, loud: tuple[float, float] | None = None, level: float = 0.01) -> str:
    """Noise that is 20 dB louder between two times."""
    sound = level * np.random.default_rng(1).standard_normal(round(seconds * rate))
    if loud:
        sound[round(loud[0] * rate) : round(loud[1] * rate)] *= 10
    soundfile.write(path, sound, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return str(path)


@pytest.mark.parametrize("rate", [4000, 11025, 48000])
def test_the_loudest_seconds_are_found_at_any_rate(tmp_path: Path, rate: int) -> None:
    uri = noise(tmp_path / "a.wav", 30, rate, loud=(17, 22))
    assert loudest_start(uri) == pytest.approx(17, abs=0.2)


def test_what_is_shorter_than_an_excerpt_is_played_whole(tmp_path: Path) -> None:
    uri = noise(tmp_path / "a.wav", 1.5, 16000)
    assert loudest_start(uri) == 0
    assert excerpt(uri, 0).seconds == 1.5


def test_the_same_moment_is_cut_from_files_of_different_rates(tmp_path: Path) -> None:
    for name, rate in (("a", 44100), ("b", 16000)):
        click = np.zeros(12 * rate)
        click[round(7.25 * rate)] = 1
        soundfile.write(tmp_path / f"{name}.wav", click, rate)
    moments = []
    for name in ("a", "b"):
        cut = excerpt(str(tmp_path / f"{name}.wav"), 4.1)
        assert cut.seconds == EXCERPT_SECONDS
        moments.append(int(np.abs(cut.sound[0]).argmax()) / cut.sample_rate)
    assert moments == pytest.approx([3.15, 3.15], abs=1 / 16000)


def test_audible_excerpts_get_the_same_loudness_below_full_scale(tmp_path: Path) -> None:
    uris = [noise(tmp_path / f"{level}.wav", 6, 16000, level=level) for level in (0.001, 0.02, 0.2)]
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(96000), 16000)
    cuts = [excerpt(uri, 0) for uri in (*uris, str(silent))]
    gains = match_levels(cuts)
    assert gains[3] == 0
    sounds = [played(cut, gain) for cut, gain in zip(cuts[:3], gains, strict=False)]
    levels = [loudness(sound, 16000) for sound in sounds]
    assert max(levels) - min(levels) < 0.1
    assert max(float(np.abs(sound).max()) for sound in sounds) <= 1
    assert levels[0] == pytest.approx(-18, abs=0.2)


def test_a_sound_with_high_peaks_lowers_its_whole_row(tmp_path: Path) -> None:
    peaky = np.zeros(96000)
    peaky[::8000] = 1.0
    soundfile.write(tmp_path / "peaky.wav", peaky, 16000)
    cuts = [excerpt(str(tmp_path / "peaky.wav"), 0), excerpt(noise(tmp_path / "a.wav", 6, 16000), 0)]
    sounds = [played(cut, gain) for cut, gain in zip(cuts, match_levels(cuts), strict=True)]
    assert loudness(sounds[0], 16000) == pytest.approx(loudness(sounds[1], 16000), abs=0.1)
    assert 0.8 < float(np.abs(sounds[0]).max()) <= 1


def test_the_readable_part_of_a_damaged_recording_is_played(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise(path, 8, 16000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    start = loudest_start(str(path))
    assert 0 < excerpt(str(path), start).seconds <= EXCERPT_SECONDS


@pytest.mark.parametrize("content", [None, b"", b"not a sound"])
def test_what_cannot_be_read_is_an_error_with_a_reason(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    for read in (loudest_start, lambda uri: excerpt(uri, 0)):
        with pytest.raises(RaveDistError) as caught:
            read(str(path))
        assert caught.value.what


def test_a_result_that_ends_before_the_excerpt_says_so(tmp_path: Path) -> None:
    with pytest.raises(RaveDistError, match="ends before 3 s"):
        excerpt(noise(tmp_path / "a.wav", 2, 16000), 3.0)
