"""Each effect does what its name says, measured on signals whose answer is known."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from rave_dist.training.data import augmentations as effects

torch.set_num_threads(1)
SAMPLE_RATE = 44100


def tone(level: float, *, samples: int = 44100, cycles_per_sample: float = 0.01) -> torch.Tensor:
    """``[1, 1, samples]``, with a peak at ``level`` dB."""
    wave = torch.sin(2 * math.pi * cycles_per_sample * torch.arange(samples, dtype=torch.float64))
    return (10 ** (level / 20) * wave).float()[None, None]


def decibels(x: torch.Tensor) -> float:
    return 20 * math.log10(float(x.abs().max()))


def draws(probabilities: dict[str, float], batch: int) -> dict[str, effects.Draw]:
    return effects.draw(probabilities, batch, torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- gain


def test_gain_is_a_gain_in_decibels_from_minus_six_to_three() -> None:
    x = tone(-20.0).expand(3, 2, -1)
    louder = effects.gain(x, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    for row, gained in enumerate((-6.0, -1.5, 3.0)):
        assert torch.allclose(louder[row], x[row] * 10 ** (gained / 20), rtol=1e-5)


def test_gain_never_leaves_full_scale_nor_clips() -> None:
    x = tone(-1.0)
    louder = effects.gain(x, torch.tensor([1.0]))
    assert float(louder.abs().max()) == pytest.approx(1)
    assert torch.allclose(louder, x / x.abs().max(), atol=1e-6)


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("level", "lift"), [(0.0, 0.0), (-20.0, 10.0), (-40.0, 20.0), (-60.0, 10.0), (-80.0, 0.0), (-95.0, 0.0)]
)
def test_a_steady_level_is_raised_along_the_curve(value: float, level: float, lift: float) -> None:
    y = effects.compress(tone(level), torch.tensor([value]), sample_rate=SAMPLE_RATE)
    assert decibels(y[..., 5000:-5000]) == pytest.approx(level + value * lift, abs=0.2)


def test_strokes_lose_level_range_and_crest_but_keep_their_attack() -> None:
    time = torch.arange(88200) / SAMPLE_RATE
    stroke = (0.9 * torch.exp(-(time % 0.5) / 0.08) * torch.sin(2 * math.pi * 200 * time))[None, None]
    flatter = effects.compress(stroke, torch.tensor([1.0]), sample_rate=SAMPLE_RATE)

    def crest(x: torch.Tensor) -> float:
        return decibels(x) - 10 * math.log10(float(x.square().mean()))

    def level_range(x: torch.Tensor) -> float:
        levels = 10 * torch.log10(x.unfold(-1, 2205, 2205).square().mean(-1))
        return float(levels.max() - levels.min())

    assert crest(flatter) < crest(stroke) - 2
    assert level_range(flatter) < level_range(stroke) - 5
    assert float(flatter.abs().max()) <= 1


def test_onset_out_of_silence_does_not_overshoot() -> None:
    x = torch.cat([tone(-40.0), tone(-0.1, samples=8000)], -1)
    y = effects.compress(x, torch.tensor([1.0]), sample_rate=SAMPLE_RATE)
    assert float(y.abs().max()) <= 1


def test_silence_stays_silence_and_channels_keep_their_balance() -> None:
    assert not effects.compress(torch.zeros(1, 1, 1000), torch.tensor([1.0]), sample_rate=SAMPLE_RATE).any()
    x = torch.cat([tone(-20.0), tone(-50.0)], 1)
    y = effects.compress(x, torch.tensor([1.0]), sample_rate=SAMPLE_RATE)
    assert torch.allclose(y[:, 0] * 10 ** (-30 / 20), y[:, 1], atol=1e-6)


# ---------------------------------------------------------------- pitch


@pytest.mark.parametrize("ratio", effects._ratios(), ids=str)
def test_a_tone_moves_by_the_ratio(ratio: Fraction) -> None:
    size, frequency = 4000, 0.1
    x = tone(0.0, samples=effects.source_samples(size, ratio), cycles_per_sample=frequency)[0]
    y = effects.resample(x, ratio, size)[0].double()
    assert y.shape == (size,)
    turning = 2 * math.pi * frequency * float(ratio) * torch.arange(size, dtype=torch.float64)
    basis = torch.stack([turning.sin(), turning.cos()], 1)
    fit = torch.linalg.lstsq(basis, y[:, None]).solution
    assert float(fit.square().sum()) == pytest.approx(1, abs=2e-3)
    assert float((basis @ fit - y[:, None]).abs().max()) < 2e-3


def test_what_would_alias_is_gone() -> None:
    ratio = Fraction(4, 3)
    x = tone(0.0, samples=effects.source_samples(4000, ratio), cycles_per_sample=0.45)[0]
    assert float(effects.resample(x, ratio, 4000).abs().max()) < 0.01


def test_ratios_are_spread_evenly_in_pitch_between_a_fourth_down_and_a_fourth_up() -> None:
    ratios = [effects.pitch_ratio(value) for value in torch.linspace(0, 1, 1001, dtype=torch.float64).tolist()]
    assert (min(ratios), max(ratios)) == (Fraction(3, 4), Fraction(4, 3))
    assert ratios == sorted(ratios)
    logs = torch.tensor([math.log(ratio) for ratio in ratios])
    even = torch.linspace(math.log(3 / 4), math.log(4 / 3), 1001)
    assert float((logs - even).abs().max()) < 0.07
    assert 1 not in ratios


# ---------------------------------------------------------------- chance


def test_each_happens_with_its_own_probability() -> None:
    drawn = draws({"gain": 0.5, "polarity": 0.1}, 20000)
    assert list(drawn) == ["gain", "polarity"]
    assert len(drawn["gain"].rows) / 20000 == pytest.approx(0.5, abs=0.02)
    assert len(drawn["polarity"].rows) / 20000 == pytest.approx(0.1, abs=0.02)
    assert float(drawn["gain"].values.mean()) == pytest.approx(0.5, abs=0.02)


def test_a_batch_keeps_a_window_that_sounds() -> None:
    assert len(draws({"mute": 1.0}, 8)["mute"].rows) == 7
    assert len(draws({"mute": 1.0}, 1)["mute"].rows) == 0
