"""How familiar a sound is: what is like the training set scores high, in whatever blocks it comes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rave_dist.audio.metrics.familiarity import Familiarity, features, reference
from rave_dist.audio.synthesis import bell, pink_noise
from rave_dist.audio.types import Audio
from rave_dist.records import FamiliarityReference

RATE, HOP = 16000, 256
HALF = RATE // 2


def bells(seed: int, seconds: float = 10.0) -> Audio:
    """Bells at random times, [1, samples]."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * RATE), np.float32)
    for start in np.arange(0, seconds - 0.3, 0.4):
        note = bell(float(rng.choice([400, 500, 600])), 1.5, sample_rate=RATE, rng=rng)
        first = round((start + rng.uniform(0, 0.3)) * RATE)
        sound[first : first + len(note)] += 0.2 * note[: len(sound) - first]
    return sound[None]


def latents(sound: Audio) -> Audio:
    """Of a frame its level and its roughness, [rows, 2, frames]: an encoder of mono sound."""
    frames = np.pad(sound, ((0, 0), (0, -sound.shape[1] % HOP))).reshape(len(sound), -1, HOP)
    level = np.log(np.abs(frames).mean(-1) + 1e-4)
    return np.stack([level, np.log(np.abs(np.diff(frames)).mean(-1) + 1e-4) - level], axis=1)


def half_seconds(sound: Audio) -> list[NDArray[np.float64]]:
    z = latents(sound)[0]
    return [
        features(sound[:, at : at + HALF], z[:, at // HOP : -(-(at + HALF) // HOP)], RATE)
        for at in range(0, sound.shape[1] - HALF + 1, HALF // 4)
    ]


@pytest.fixture(scope="module")
def known() -> FamiliarityReference:
    return reference(half_seconds(bells(1, 30)), half_seconds(bells(2)), seconds=30, held_out_seconds=10)


def score(known: FamiliarityReference, sound: Audio, blocks: list[int] | None = None, width: int = 1) -> list[int]:
    """Familiarities in percent, of sound and latents that come in blocks of these numbers of frames."""
    meter = Familiarity(known, sample_rate=RATE, hop=HOP, width=width)
    z, at = latents(sound), 0
    for frames in [*(blocks or []), z.shape[-1]]:
        list(meter.of([sound[:, at * HOP : (at + frames) * HOP]]))
        meter.add_latents(z[..., at : at + frames])
        at += frames
    meter.finish()
    return list(meter.percent)


def test_other_audio_of_the_kind_is_familiar_and_noise_is_not(known: FamiliarityReference) -> None:
    noise = 0.1 * pink_noise(10 * RATE, np.random.default_rng(0))[None]
    own, other = score(known, bells(3)), score(known, noise)
    assert len(own) == len(other) == 20
    assert np.median(own) > 60
    assert max(other) < 10


def test_the_reach_is_the_95th_percentile_of_the_held_out_audio(known: FamiliarityReference) -> None:
    meter = Familiarity(known, sample_rate=RATE, hop=HOP, width=1)
    squares = meter._distance.squares(np.array(half_seconds(bells(2)))) / known.reach**2
    assert np.mean(squares <= 1.001) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("samples", [1, HALF - 1, HALF, HALF + 1, 3 * HALF + HOP // 2, 7 * HALF - 1, 7 * HALF - HOP])
def test_every_half_second_has_one_score(known: FamiliarityReference, samples: int) -> None:
    sound = bells(4)[:, :samples]
    whole = score(known, sound)
    assert len(whole) == -(-samples // HALF)
    assert score(known, sound, [1, 2, 3, 30, 31, 33, 40]) == whole


def test_the_blocks_do_not_matter(known: FamiliarityReference) -> None:
    sound = np.concatenate([bells(5, 4), 0.1 * pink_noise(4 * RATE, np.random.default_rng(1))[None]], axis=1)
    whole = score(known, sound)
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert score(known, sound, list(rng.integers(1, 60, 8))) == whole
    assert np.mean(whole[:8]) > 5 * np.mean(whole[9:])


def test_equal_channels_are_scored_as_one_and_a_foreign_one_counts(known: FamiliarityReference) -> None:
    own = bells(6)
    noise = 0.1 * pink_noise(10 * RATE, np.random.default_rng(3))[None]
    assert score(known, np.concatenate([own, own])) == score(known, own)
    assert max(score(known, np.concatenate([own, noise]))) < 15


def test_a_record_survives_the_store(known: FamiliarityReference) -> None:
    again = FamiliarityReference.model_validate(known.to_json())
    assert again == known
    assert score(again, bells(7)) == score(known, bells(7))
    assert len(known.model_dump_json()) < 10_000
    with pytest.raises(ValidationError, match="lower triangle"):
        FamiliarityReference.model_validate({**known.to_json(), "mean": known.mean[1:]})
