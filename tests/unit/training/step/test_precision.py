"""What each option of ``compute`` may change of a step, and what it may not; on a CPU."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch

from rave_dist.errors import ConfigurationError
from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.step import precision as compute
from rave_dist.training.step.precision import Precision
from rave_dist.training.step.training_step import TrainingStep

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
CPU = torch.device("cpu")
WINDOW = 40960


@pytest.fixture(scope="module")
def blueprint() -> str:
    # RAVE's own epsilon, 1e-7, gives nearly silent outputs a slope of 1e7: there any rounding decides the gradient.
    override = {"CAPACITY": 4, "LATENT_SIZE": 8, "core.AudioDistanceV1.log_epsilon": 1e-3}
    return configure(("v2_small",), override, sample_rate=44100, channels=1)


def step_of(blueprint: str, *options: Any) -> TrainingStep:
    torch.manual_seed(0)
    model = build_model(blueprint, channels=1)
    return TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu", compute=options)


def trained(step: TrainingStep, steps: tuple[int, ...] = (0, 2, 3)) -> list[dict[str, float]]:
    """Losses of a step of phase 1, a discriminator step and a generator step of phase 2."""
    generator, losses = torch.Generator().manual_seed(1), []
    for index in steps:
        torch.manual_seed(index)
        batch = 0.2 * torch.rand(2, 1, WINDOW, generator=generator) - 0.1
        losses.append({name: float(value) for name, value in step(batch, index).items()})
    return losses


def minimise(optimizer: compute.Optimizer, *losses: torch.Tensor) -> None:
    optimizer.clear()
    for loss in losses:
        optimizer.add(loss)
    optimizer.step()


def weights(step: TrainingStep) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in step.model.parameters()])


def gradient(step: TrainingStep) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in step.model.parameters() if parameter.grad is not None])


def test_what_needs_a_gpu_is_refused_on_a_cpu_by_name() -> None:
    for name in ("tf32", "fp16", "cuda-graphs"):
        with pytest.raises(ConfigurationError, match=name) as caught:
            Precision(("fused-adam", name), CPU)
        assert "GPU" in caught.value.fix
        assert "fused-adam" not in caught.value.what


@pytest.mark.parametrize("option", ["bf16", "bf16-discriminator"])
def test_brain_floats_run_the_networks_and_nothing_else(blueprint: str, option: str) -> None:
    plain, low = step_of(blueprint), step_of(blueprint, option)
    seen: dict[str, set[torch.dtype]] = {}
    for name, module in low.model.named_modules():
        if isinstance(module, torch.nn.Conv1d) and name.split(".")[0] != "discriminator":
            part = seen.setdefault(name.split(".")[0], set())
            module.register_forward_hook(lambda module, inputs, output, part=part: part.add(output.dtype))
    low._discriminator = tell_dtype(low._discriminator, seen.setdefault("discriminator", set()))
    expected, found = trained(plain), trained(low)
    assert seen["discriminator"] == {torch.bfloat16}
    assert seen["encoder"] == seen["decoder"] == ({torch.bfloat16} if option == "bf16" else {torch.float32})
    assert seen["pqmf"] == {torch.float32}
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}
    assert expected != found
    assert found[0] == pytest.approx(expected[0], rel=0.05, abs=0.02)
    assert all(math.isfinite(value) for losses in found for value in losses.values())


def tell_dtype(function: Any, seen: set[torch.dtype]) -> Any:
    def told(audio: torch.Tensor) -> Any:
        features = function(audio)
        seen.update(feature.dtype for scale in features for feature in scale)
        return features

    return told


def test_phase_1_has_no_discriminator_to_change(blueprint: str) -> None:
    plain, low = step_of(blueprint), step_of(blueprint, "bf16-discriminator")
    assert trained(plain, (0,)) == trained(low, (0,))
    assert torch.equal(weights(plain), weights(low))


def test_one_kernel_for_adam_is_adam_and_resumes(blueprint: str) -> None:
    plain, fused = step_of(blueprint), step_of(blueprint, "fused-adam")
    for optimizer in (plain.generator_optimizer, plain.discriminator_optimizer):
        optimizer.param_groups[0].update(fused=False)
    assert all(group["fused"] for group in fused.generator_optimizer.param_groups)
    assert trained(plain)[0] == trained(fused)[0]
    assert float((weights(plain) - weights(fused)).abs().max()) < 1e-4
    resumed = step_of(blueprint, "fused-adam")
    resumed.model.load_state_dict(fused.model.state_dict())
    resumed.load_state_dict(copy.deepcopy(fused.state_dict()))
    trained(fused, (4, 5))
    trained(resumed, (4, 5))
    assert torch.equal(weights(fused), weights(resumed))


def test_what_another_optimizer_knows_is_taken_over_without_its_way_to_compute(blueprint: str) -> None:
    stock, ours = step_of(blueprint), step_of(blueprint)
    for optimizer in (stock.generator_optimizer, stock.discriminator_optimizer):
        optimizer.param_groups[0].update(fused=False, foreach=True)
    trained(stock)
    ours.scale_learning_rate(0.5)
    ours.resume(
        copy.deepcopy(stock.generator_optimizer.state_dict()), copy.deepcopy(stock.discriminator_optimizer.state_dict()), step=1
    )
    for known, taken in zip(stock.generator_optimizer.state.values(), ours.generator_optimizer.state.values(), strict=True):
        assert all(torch.equal(known[name], taken[name]) for name in ("exp_avg", "exp_avg_sq", "step"))
    assert all(group["fused"] and not group["foreach"] for group in ours.generator_optimizer.param_groups)
    assert all(group["fused"] for group in ours.discriminator_optimizer.param_groups)
    assert [group["lr"] for group in ours.generator_optimizer.param_groups] == pytest.approx([5e-5])  # its own, not theirs
    trained(ours, (2, 3))


def test_compiled_networks_are_the_networks(blueprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the default one takes minutes of compiling
    plain, compiled = step_of(blueprint), step_of(blueprint, "compile")
    assert compiled._encoder is not compiled.model.encoder
    assert trained(plain, (0,)) == trained(compiled, (0,))
    assert torch.equal(weights(plain), weights(compiled))
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()


class TestHalfPrecision:
    """On a CPU, which a manifest may not ask for, to see the loss scaling work."""

    @pytest.fixture
    def step(self, blueprint: str, monkeypatch: pytest.MonkeyPatch) -> TrainingStep:
        monkeypatch.setattr(compute, "NEED_CUDA", frozenset())
        return step_of(blueprint, "fp16")

    def test_the_scale_of_the_loss_does_not_change_what_is_learnt(self, step: TrainingStep, blueprint: str) -> None:
        plain, before = step_of(blueprint), weights(step)
        assert trained(step, (0,))[0] == pytest.approx(trained(plain, (0,))[0], rel=0.05, abs=0.02)
        for _ in range(40):  # until the scale has come down to what half precision holds
            if not torch.equal(weights(step), before):
                break
            trained(step, (0,))
        assert float((gradient(step) - gradient(plain)).norm() / gradient(plain).norm()) < 0.05
        assert all(math.isfinite(value) for losses in trained(step, (2, 3)) for value in losses.values())

    def test_a_step_that_overflows_is_left_out_and_the_scale_halved(self, step: TrainingStep) -> None:
        before = weights(step)
        parameter = next(step.model.decoder.parameters())
        descent = step._generators_descent
        minimise(descent, (parameter * float("inf")).sum())
        assert torch.equal(weights(step), before)
        scale = descent.state_dict()["scaler"]["scale"]
        minimise(descent, parameter.square().sum())
        assert not torch.equal(weights(step), before)
        twin = Precision(("fp16",), CPU).optimizer(torch.optim.Adam([torch.zeros(1, requires_grad=True)]))
        assert scale == twin.state_dict()["scaler"]["scale"] / 2

    def test_gradients_of_parts_add_up_under_one_scale(self, step: TrainingStep) -> None:
        parameter = next(step.model.decoder.parameters())
        descent = step._generators_descent
        minimise(descent, parameter.sum(), 2 * parameter.sum())
        scale = descent.state_dict()["scaler"]["scale"]
        assert torch.equal(parameter.grad, torch.full_like(parameter, 3.0)), scale
        before = weights(step)
        minimise(descent, parameter.square().sum(), (parameter * float("inf")).sum())
        assert torch.equal(weights(step), before), "one part that overflows is a step that does"

    def test_the_scale_is_saved(self, step: TrainingStep, blueprint: str) -> None:
        minimise(step._generators_descent, (next(step.model.decoder.parameters()) * float("inf")).sum())
        other = step_of(blueprint, "fp16")
        other.load_state_dict(copy.deepcopy(step.state_dict()))
        assert other.state_dict()["generator_optimizer"]["scaler"] == step.state_dict()["generator_optimizer"]["scaler"]
