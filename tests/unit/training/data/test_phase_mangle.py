"""The batched all-pass filter is the one that RAVE runs sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from rave_dist.training.data.phase_mangle import all_pass_, random_angles

torch.set_num_threads(1)
SAMPLE_RATE, RADIUS = 44100, 0.99
ANGLES = random_angles(torch.linspace(0, 0.999999, 7, dtype=torch.float64), sample_rate=SAMPLE_RATE)


def all_pass(x: torch.Tensor) -> torch.Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    all_pass_(y, ANGLES, RADIUS)
    return y


def by_lfilter(x: torch.Tensor, angles: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
    rows = []
    for row, angle in zip(x.double().numpy(), angles.tolist(), strict=True):
        middle = -2 * RADIUS * math.cos(angle)
        rows.append(lfilter([RADIUS**2, middle, 1], [1, middle, RADIUS**2], row))
    return np.stack(rows)


def signal(kind: str, length: int) -> torch.Tensor:
    shape = (len(ANGLES), 2, length)
    if kind == "constant":
        return torch.ones(shape)
    if kind == "resonant tone":
        return torch.sin(ANGLES[:, None, None] * torch.arange(length)).float().expand(shape)
    if kind == "click":
        return torch.nn.functional.one_hot(torch.tensor(length // 3), length).float().expand(shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(length)) * 2 - 1


@pytest.mark.parametrize("kind", ["noise", "constant", "resonant tone", "click"])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 1025, 40000, 65536])
def test_equals_scipy_to_a_millionth_of_full_scale(kind: str, length: int) -> None:
    x = signal(kind, length)
    expected = by_lfilter(x, ANGLES)
    error = np.abs(all_pass(x).double().numpy() - expected).max()
    assert error <= 1e-6 * max(1.0, np.abs(expected).max())


def test_is_exact_in_double_precision_over_many_groups() -> None:
    x = signal("noise", 100_000).double()
    assert np.abs(all_pass(x).numpy() - by_lfilter(x, ANGLES)).max() < 1e-10


def test_keeps_the_level_of_every_frequency() -> None:
    click = torch.zeros(len(ANGLES), 1, 16384, dtype=torch.float64)
    click[..., 0] = 1
    levels = torch.fft.rfft(all_pass(click)).abs()
    assert float((levels - 1).abs().max()) < 1e-9


def test_frequencies_span_their_range_evenly_in_pitch() -> None:
    hertz = random_angles(torch.tensor([0.0, 0.5, 1.0]), sample_rate=SAMPLE_RATE) * SAMPLE_RATE / (2 * math.pi)
    assert hertz.tolist() == pytest.approx([20, 200, 2000], rel=1e-4)
    low_rate = random_angles(torch.tensor([1.0]), sample_rate=2000)
    assert float(low_rate) < math.pi
