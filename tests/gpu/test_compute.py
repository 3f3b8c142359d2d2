"""The options of ``compute`` that need a CUDA device: what they change of a step, and that a recorded step is the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.step.training_step import TrainingStep

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

WINDOW, STEPS = 40960, 14  # of each kind of step more than are done before one is recorded


@pytest.fixture(scope="module")
def text() -> str:
    # RAVE's own epsilon, 1e-7, gives nearly silent outputs a slope of 1e7: there any rounding decides the gradient.
    override = {"CAPACITY": 8, "LATENT_SIZE": 8, "core.AudioDistanceV1.log_epsilon": 1e-3}
    return configure(("v2_small",), override, sample_rate=44100, channels=1)


def train(text: str, *options: Any, accumulation_steps: int = 1) -> tuple[list[dict[str, float]], TrainingStep]:
    torch.manual_seed(0)
    model = build_model(text, channels=1)
    step = TrainingStep(
        model, phase_1_steps=6, warmup_steps=5, device="cuda", compute=options, accumulation_steps=accumulation_steps
    )
    batches = torch.Generator().manual_seed(1)
    losses = []
    for index in range(STEPS + 6):
        batch = (0.2 * torch.rand(2, 1, WINDOW, generator=batches) - 0.1).cuda()
        losses.append({name: float(value) for name, value in step(batch, index).items()})
    return losses, step


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("option", ["tf32", "bf16", "bf16-discriminator", "fp16", "fused-adam", "cuda-graphs"])
def test_every_option_trains_to_nearly_the_same_distance(text: str, option: str, accumulation_steps: int) -> None:
    (plain, _), (other, step) = (
        train(text, accumulation_steps=accumulation_steps),
        train(text, option, accumulation_steps=accumulation_steps),
    )
    for theirs, ours in zip(plain, other, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["beta_factor"] == theirs["beta_factor"]
    assert other[0]["fullband_spectral_distance"] == pytest.approx(plain[0]["fullband_spectral_distance"], rel=0.05)
    assert other[-1]["fullband_spectral_distance"] == pytest.approx(plain[-1]["fullband_spectral_distance"], rel=0.2)
    assert other[5]["fullband_spectral_distance"] < other[0]["fullband_spectral_distance"]
    assert {parameter.dtype for parameter in step.model.parameters()} == {torch.float32}
    assert float(step.generator_optimizer.param_groups[0]["lr"]) == pytest.approx(1e-4)


def test_recorded_steps_go_on_from_a_checkpoint(text: str) -> None:
    _, step = train(text, "cuda-graphs")
    saved = {"model": step.model.state_dict(), "step": step.state_dict()}
    on_host = torch.utils._pytree.tree_map(lambda value: value.cpu() if isinstance(value, torch.Tensor) else value, saved)
    twin = TrainingStep(build_model(text, channels=1), phase_1_steps=6, warmup_steps=5, device="cuda", compute=("cuda-graphs",))
    twin.model.load_state_dict(on_host["model"])
    twin.load_state_dict(on_host["step"])
    before = [parameter.detach().clone() for parameter in twin.model.parameters()]
    for index in range(STEPS, 2 * STEPS):
        twin(torch.full((2, 1, WINDOW), 0.1, device="cuda"), index)
    assert any(not torch.equal(now, then) for now, then in zip(twin.model.parameters(), before, strict=True))
