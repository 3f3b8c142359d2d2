"""A verdict follows from measured sound: the word is what a listener would say of it."""

from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.types import Audio
from rave_dist.records import Metrics
from rave_dist.records.verdict import SILENT_PEAK_DBFS, verdict_of
from rave_dist.registry.metrics import measure

pytestmark = pytest.mark.slow

RATE = 44100


def _drums(seconds: float = 6.0, *, pitch: float = 220.0) -> Audio:
    """Decaying strokes at quarter notes."""
    t = np.arange(round(seconds * RATE)) / RATE
    since = t % 0.5
    return np.asarray(0.5 * np.exp(-6 * since) * np.sin(2 * np.pi * pitch * since), np.float32)[None]


def _metrics(answer: Audio, original: Audio | None = None) -> dict[str, Metrics]:
    original = _drums() if original is None else original
    noise = np.asarray(0.05 * np.random.default_rng(0).standard_normal(original.shape), np.float32)
    sounds = {"model": answer, "noise": noise, "silence": np.zeros_like(original)}
    return {name: measure(original, sound, RATE) for name, sound in sounds.items()}


def _word(answer: Audio) -> str:
    found = verdict_of(_metrics(answer))
    assert found is not None
    assert bool(found.reasons) == (found.word != "playable")
    return found.word


def test_the_original_itself_is_playable() -> None:
    assert _word(_drums()) == "playable"
    assert _word(_drums() * np.float32(0.8)) == "playable"


@pytest.mark.parametrize("level", [0.0, 1e-6, 10 ** ((SILENT_PEAK_DBFS - 1) / 20)])
def test_what_16_bits_do_not_hold_is_silent(level: float) -> None:
    quiet = _drums() * np.float32(level / np.abs(_drums()).max())
    assert _word(quiet) == "silent"


def test_half_a_step_of_16_bits_is_digital_silence() -> None:
    found = verdict_of(_metrics(_drums() * np.float32(0.4 / 32767)))
    assert found is not None
    assert "digital silence" in str(found)


def test_another_noise_is_no_better_than_noise() -> None:
    noise = np.asarray(0.3 * np.random.default_rng(1).standard_normal(_drums().shape), np.float32)
    assert _word(noise) == "no better than noise"


def test_a_faint_steady_noise_is_no_better_than_noise() -> None:
    noise = np.asarray(5e-4 * np.random.default_rng(1).standard_normal(_drums().shape), np.float32)
    assert _word(noise) == "no better than noise"


@pytest.mark.parametrize(("gain", "pitch", "reason"), [(0.3, 220.0, "LU"), (1.0, 262.0, "cents")])
def test_a_shortcoming_makes_a_sketch_and_is_named(gain: float, pitch: float, reason: str) -> None:
    found = verdict_of(_metrics(_drums(pitch=pitch) * np.float32(gain)))
    assert found is not None
    assert found.word == "sketch"
    assert any(reason in each for each in found.reasons)


def test_what_was_not_measured_has_none() -> None:
    assert verdict_of({}) is None
    assert verdict_of({"model": _metrics(_drums())["model"]}) is None
