"""A step in parts of its batch: which sums stay what they are, which become means, and that the memory is that of one part."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.step.training_step import TrainingStep

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
GENERATOR_1, DISCRIMINATOR, GENERATOR_2 = 0, 2, 3  # numbers of steps


@pytest.fixture(scope="module")
def text() -> str:
    """Of a model without batch statistics and without random numbers: its encoder is spherical, its decoder makes no noise."""
    override = {"CAPACITY": 4, "LATENT_SIZE": 8, "core.AudioDistanceV1.log_epsilon": 1e-3, "GeneratorV2.noise_module": None}
    return configure(("v2_small", "spherical"), override, sample_rate=44100, channels=1)


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    loudness = torch.tensor([0.02, 0.3, 0.1, 0.15], dtype=torch.float64).reshape(4, 1, 1)
    return loudness * torch.randn(4, 1, 40960, dtype=torch.float64, generator=generator)


def done(text: str, batch: torch.Tensor, number: int, *, accumulation_steps: int = 1) -> tuple[dict[str, float], torch.Tensor]:
    """Losses and gradients of one step of a new model."""
    torch.manual_seed(0)
    model = build_model(text, channels=1).to(batch.dtype)
    set_receptive_field(model)
    step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu", accumulation_steps=accumulation_steps)
    losses = {name: float(value) for name, value in step(batch, number).items()}
    return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_what_is_a_mean_over_windows_does_not_change(text: str, batch: torch.Tensor) -> None:
    losses, gradient = done(text, batch, DISCRIMINATOR)
    for accumulation_steps in (2, 3, 4):  # three: two windows, one, and one
        in_parts, accumulated = done(text, batch, DISCRIMINATOR, accumulation_steps=accumulation_steps)
        assert difference(accumulated, gradient) < 1e-10
        assert in_parts == pytest.approx(losses, rel=1e-10)


@pytest.mark.parametrize("number", [GENERATOR_1, GENERATOR_2], ids=["phase 1", "phase 2"])
def test_what_is_a_ratio_over_the_batch_becomes_the_mean_of_those_of_the_parts(
    text: str, batch: torch.Tensor, number: int
) -> None:
    whole, gradient = done(text, batch, number)
    in_parts, accumulated = done(text, batch, number, accumulation_steps=2)
    halves = [done(text, half, number) for half in batch.split(2)]
    assert difference(accumulated, (halves[0][1] + halves[1][1]) / 2) < 1e-10
    assert in_parts == pytest.approx({name: (halves[0][0][name] + halves[1][0][name]) / 2 for name in whole}, rel=1e-10)
    assert difference(accumulated, gradient) > 1e-6, "the energy of a part is not that of the batch"
    if number == GENERATOR_2:
        same = {"adversarial", "pred_fake", "pred_real", "loss_dis"}
        assert {name: in_parts[name] for name in same} == pytest.approx({name: whole[name] for name in same}, rel=1e-10)


class _Kept:
    """Counts the bytes that automatic differentiation keeps for its way back."""

    def __init__(self) -> None:
        self.peak = self._now = 0
        self._users: dict[int, int] = {}

    def __enter__(self) -> _Kept:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda box: box.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        self._count(storage.data_ptr(), storage.nbytes(), 1)
        box = _Box(tensor)
        weakref.finalize(box, self._count, storage.data_ptr(), storage.nbytes(), -1)
        return box

    def _count(self, place: int, size: int, change: int) -> None:
        before = self._users.get(place, 0)
        self._users[place] = before + change
        if 0 in (before, before + change):
            self._now += change * size
            self.peak = max(self.peak, self._now)


class _Box:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("number", [GENERATOR_1, DISCRIMINATOR, GENERATOR_2], ids=["phase 1", "discriminator", "phase 2"])
def test_the_memory_is_that_of_a_part(text: str, batch: torch.Tensor, number: int) -> None:
    def kept(accumulation_steps: int) -> int:
        with _Kept() as seen:
            done(text, batch, number, accumulation_steps=accumulation_steps)
        return seen.peak

    whole = kept(1)
    assert kept(2) < 0.55 * whole
    assert kept(4) < 0.3 * whole
