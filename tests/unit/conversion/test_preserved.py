"""Pitch and rhythm of a result against its recording: facts of known sounds, whatever the blocks, rates and lengths."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.synthesis import plucked_string
from rave_dist.conversion.preserved import Features, Medians, compare, windows
from rave_dist.records import ConversionItem, ConversionRecord, Preservation
from rave_dist.storage.store import Store

RATE = 44100


def melody(transposed: float = 1.0, *, rate: int = RATE, delay: float = 0.0, notes: int = 12) -> np.ndarray:
    """Notes of a plucked string, one each half second, float32 [1, T]."""
    pitches = np.tile([220.0, 330.0, 275.0, 440.0, 367.0], 3)[:notes]
    rng = np.random.default_rng(0)
    sounds = [plucked_string(hz * transposed, 0.5, sample_rate=rate, rng=rng) for hz in pitches]
    return np.float32(0.5) * np.concatenate([np.zeros(round(delay * rate), np.float32), *sounds])[None]


def measured(sound: np.ndarray, rate: int = RATE, *, seconds: float = 6.0, block: int = 10_000) -> Features:
    features = Features(seconds, rate)
    for _ in features.of(sound[:, i : i + block] for i in range(0, sound.shape[1], block)):
        pass
    return features


def test_a_recording_keeps_all_of_itself() -> None:
    assert compare(measured(melody()), measured(melody())) == Preservation(pitch_cents=0.0, pitch_kept=1.0, onset_f_measure=1.0)


def test_a_transposed_result_is_off_by_as_many_cents_and_keeps_the_rhythm() -> None:
    found = compare(measured(melody()), measured(melody(2 ** (3 / 12))))
    assert found.pitch_cents == pytest.approx(300, abs=10)
    assert found.pitch_kept == pytest.approx(1, abs=0.1)
    assert found.onset_f_measure == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("delay", "f_measure"), [(0.03, 1.0), (0.15, 0.0)])
def test_rhythm_is_kept_within_50_ms(delay: float, f_measure: float) -> None:
    found = compare(measured(melody()), measured(melody(delay=delay)))
    assert found.onset_f_measure == pytest.approx(f_measure, abs=0.15)


def test_noise_keeps_no_pitch_and_silence_neither() -> None:
    noise = np.float32(0.1) * np.random.default_rng(0).standard_normal((1, 6 * RATE)).astype(np.float32)
    found = compare(measured(melody()), measured(noise))
    assert found.pitch_kept == pytest.approx(0, abs=0.02)
    assert found.onset_f_measure is not None
    assert found.onset_f_measure < 0.3
    silence = np.zeros((1, 6 * RATE), np.float32)
    assert compare(measured(melody()), measured(silence)) == Preservation(pitch_kept=0.0, onset_f_measure=0.0)
    assert compare(measured(silence), measured(melody())) == Preservation()


@pytest.mark.parametrize("block", [1, 997, 50_000, 6 * RATE])
def test_it_does_not_depend_on_the_blocks(block: int) -> None:
    sound = melody(notes=3) if block == 1 else melody()
    seconds = sound.shape[1] / RATE
    whole, parts = (measured(sound, seconds=seconds, block=size) for size in (sound.shape[1], block))
    for name in ("pitches", "onsets"):
        for a, b in zip(getattr(whole, name), getattr(parts, name), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_rate_other_channels_and_a_missing_end_are_compared_in_time() -> None:
    stereo = np.repeat(melody(rate=48000), 2, axis=0)
    found = compare(measured(melody()), measured(stereo, 48000))
    assert found.pitch_cents == pytest.approx(0, abs=15)  # a string's period is a whole number of samples
    assert found.onset_f_measure == pytest.approx(1, abs=0.1)
    half = compare(measured(melody()), measured(melody()[:, : 3 * RATE]))
    assert (half.pitch_cents, half.pitch_kept) == (0.0, pytest.approx(0.5, abs=0.1))
    nothing = compare(measured(melody()), measured(np.zeros((1, 0), np.float32)))
    assert nothing == Preservation(pitch_kept=0.0, onset_f_measure=0.0)


@pytest.mark.parametrize("seconds", [0.01, 1.0, 3.0, 5.0, 8.0, 33.0, 600.0, 36_000.0])
def test_windows_lie_inside_and_apart_and_are_few(seconds: float) -> None:
    found = windows(seconds)
    assert found[0][0] >= -1e-9
    assert found[-1][0] + found[-1][1] <= seconds + 1e-9
    assert all(start + length < following for (start, length), (following, _) in pairwise(found))
    total = sum(length for _, length in found)
    assert total <= max(2.0, min(400.0, seconds / 2))
    assert total >= min(seconds, 2.0, 400.0)


def test_medians_are_over_the_files_that_have_the_quantity() -> None:
    items = [Preservation(pitch_cents=cents, onset_f_measure=0.5) for cents in (1.0, 9.0, None, 3.0)]
    medians = Medians()
    assert medians.preserved == Preservation()
    for item in items:
        medians.add(item)
    assert medians.preserved == medians.copy().preserved == Preservation(pitch_cents=3.0, onset_f_measure=0.5)


def test_a_conversion_reports_it_for_each_file_and_in_the_median(
    tmp_path: Path, local_store: Store, convert: Callable[..., ConversionRecord]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", melody(rate=16000)[0], 16000)
    soundfile.write(folder / "b.wav", np.zeros(16000), 16000)
    record = convert(folder, tmp_path / "out", sample_rate=48000)
    entries = list(local_store.list(f"conversions/{record.id}/journal"))
    found = {Path(item.source).name: item for item in (ConversionItem.load(local_store, entry.key) for entry in entries)}
    assert (found["a.wav"].pitch_cents, found["a.wav"].pitch_kept) == (pytest.approx(0, abs=2), pytest.approx(1, abs=0.02))
    assert found["a.wav"].onset_f_measure == pytest.approx(1, abs=0.15)  # another rate: a weak onset may be in one alone
    assert found["b.wav"].in_words == ""
    assert record.preserved.onset_f_measure == found["a.wav"].onset_f_measure
    again = convert(folder, tmp_path / "out", sample_rate=48000)
    assert (again.skipped, again.preserved) == (2, record.preserved)
