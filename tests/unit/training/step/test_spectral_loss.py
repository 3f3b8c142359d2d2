"""The fused spectral distance is RAVE's, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rave_dist.rave.imports import rave_module
from rave_dist.training.step.spectral_loss import lean_distance

torch.set_num_threads(1)


def rave_distance(dtype: torch.dtype = torch.float64, epsilon: float = 1e-7, **options: Any) -> Any:
    core = rave_module("core")
    scales = [2048, 512, 128]
    return core.AudioDistanceV1(lambda: core.MultiScaleSTFT(scales, 44100, **options), epsilon).to(dtype)


def signals(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, y = (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    x[0, :, :1500] = 0
    y[..., 100:900] = 0
    return x.to(dtype), y.to(dtype).requires_grad_()


def both(module: Any, x: torch.Tensor, y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    results = []
    for distance in (module, lean_distance(module)):
        value = distance(x, y)["spectral_distance"]
        results.append((value.detach(), torch.autograd.grad(2.5 * value, y)[0]))
    return results


@pytest.mark.parametrize("shape", [(2, 1, 9000), (1, 2, 4097), (2, 16, 1200)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_value_and_gradient(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    (value, gradient), (ours, our_gradient) = both(rave_distance(dtype), *signals(shape, dtype))
    assert float((ours - value).abs()) < tolerance * float(value)
    assert float((our_gradient - gradient).abs().max()) < tolerance * float(gradient.abs().max())


def test_a_cropped_view_and_one_row_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rave_dist.training.step.spectral_loss._CACHE_VALUES", 1)
    x, y = signals((2, 3, 6000), torch.float64)
    module = rave_distance(epsilon=1.0)
    values, gradients = [], []
    for distance in (module, lean_distance(module)):
        values.append(distance(x[..., 300:-200], y[..., 300:-200])["spectral_distance"])
        gradients.append(torch.autograd.grad(values[-1], y)[0])
    assert float((values[0] - values[1]).detach().abs()) < 1e-12 * float(values[0].detach())
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-12 * float(gradients[0].abs().max())


def test_silence_against_silence_has_a_finite_gradient_in_y() -> None:
    x = 0.1 * torch.ones(1, 1, 4096, dtype=torch.float64)
    y = torch.zeros(1, 1, 4096, dtype=torch.float64, requires_grad=True)
    lean_distance(rave_distance())(x, y)["spectral_distance"].backward()
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())


def test_without_gradient_nothing_is_kept() -> None:
    x, y = signals((1, 1, 4096), torch.float32)
    value = lean_distance(rave_distance(torch.float32))(x, y.detach())["spectral_distance"]
    assert not value.requires_grad


@pytest.mark.parametrize("options", [{"magnitude": False}, {"normalized": True}, {"num_mels": 8}], ids=str)
def test_other_distances_are_left_to_rave(options: dict[str, Any]) -> None:
    module = rave_distance(**options)
    assert lean_distance(module) is module
