from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from rave_dist.errors import ConfigurationError
from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.rave.window import check_window, latent_hop
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.evaluation.validation import measuring
from rave_dist.training.step.training_step import TrainingStep

torch.set_num_threads(1)
WINDOW = 40960
SMALL = {"CAPACITY": 4, "LATENT_SIZE": 6}


def build(*config: str, channels: int = 1, receptive_field: bool = True, **override: Any) -> Any:
    text = configure(config, SMALL | override, sample_rate=44100, channels=channels)
    torch.manual_seed(0)
    model = build_model(text, channels=channels)
    if receptive_field:
        set_receptive_field(model)
    return model


def noise(channels: int = 1, window: int = WINDOW, seed: int = 1) -> torch.Tensor:
    return 0.2 * torch.rand(1, channels, window, generator=torch.Generator().manual_seed(seed)) - 0.1


def snapshot(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def test_each_step_trains_what_its_phase_trains() -> None:
    model = build("v2_small")
    step = TrainingStep(model, phase_1_steps=2, warmup_steps=1, device="cpu")
    trained = []
    for index in range(4):
        before = [snapshot(part) for part in (model.encoder, model.decoder, model.discriminator, model.pqmf)]
        losses = step(noise(seed=index), index)
        networks = (model.encoder, model.decoder, model.discriminator, model.pqmf)
        trained.append([changed(part, b) for part, b in zip(networks, before, strict=True)])
        assert all(bool(value.isfinite()) and not value.requires_grad for value in losses.values())
    assert trained == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, True, False, False],
    ]
    assert [step.phase(index) for index in range(4)] == [1, 1, 2, 2]
    assert all(parameter.requires_grad for parameter in model.discriminator.parameters())
    rate = step.generator_optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "override"),
    [
        (("v1",), {}),
        (("v2_small",), {}),
        (("v2_small", "wasserstein"), {"NOISE_AUGMENTATION": 3}),
        (("v2_small", "spherical"), {}),
        (("discrete",), {"NUM_QUANTIZERS": 2, "CODEBOOK_SIZE": 16, "NOISE_AUGMENTATION": 4}),
    ],
    ids=str,
)
def test_a_frozen_encoder_stays_as_it_is_with_its_statistics_and_codebooks(
    config: tuple[str, ...], override: dict[str, Any]
) -> None:
    model = build(*config, **override)
    for layer in getattr(getattr(model.encoder, "rvq", None), "layers", ()):
        layer._codebook.inited.fill_(1)  # as in every trained model
        layer._codebook.embed.normal_()
    step = TrainingStep(model, phase_1_steps=2, warmup_steps=1, device="cpu", quantize=True, freeze_encoder=True)
    flags = {"warmed_up", "enabled"}
    encoder = {name: value.clone() for name, value in model.encoder.state_dict().items() if name not in flags}
    decoder = snapshot(model.decoder)
    window = 73728 if config == ("discrete",) else WINDOW
    for index in range(4):
        step(noise(window=window, seed=index), index)
        with measuring(model):  # and training mode again
            pass
        assert changed(model.decoder, decoder), index
    after = model.encoder.state_dict()
    assert [name for name, value in encoder.items() if not torch.equal(value, after[name])] == []
    assert step.generator_optimizer.state_dict()["state"].keys() < set(range(len([*model.encoder.parameters(), *decoder])))


def test_a_spherical_encoder_is_trained_in_both_phases_as_rave_does() -> None:
    model = build("v2_small", "spherical")
    step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu")
    before = snapshot(model.encoder)
    step(noise(), 1)
    assert changed(model.encoder, before)


def test_warm_up_rises_geometrically_to_its_target() -> None:
    override = {"BetaWarmupCallback.initial_value": 1e-4, "BetaWarmupCallback.target_value": 1.0}
    step = TrainingStep(build("v2_small", receptive_field=False, **override), phase_1_steps=9, warmup_steps=4, device="cpu")
    assert [step.beta(index) for index in range(5)] == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 1.0])


def test_goes_on_exactly_where_it_was_saved() -> None:
    torch.manual_seed(5)
    straight = TrainingStep(build("v1"), phase_1_steps=2, warmup_steps=2, device="cpu")
    for index in range(2):
        straight(noise(seed=index), index)
    model_state = {name: value.clone() for name, value in straight.model.state_dict().items()}
    step_state, random_state = copy.deepcopy(straight.state_dict()), torch.get_rng_state()
    resumed = TrainingStep(build("v1", receptive_field=False), phase_1_steps=2, warmup_steps=2, device="cpu")
    resumed.model.load_state_dict(model_state)
    resumed.load_state_dict(step_state)
    ends = []
    for step in (straight, resumed):
        torch.set_rng_state(random_state)
        for index in range(2, 4):
            step(noise(seed=index), index)
        ends.append(step.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "window"),
    [
        (("v2_small", "noise"), WINDOW),
        (("v2_small", "snake", "adain"), WINDOW),
        (("v2_small", "descript_discriminator"), WINDOW),
        (("v2_small", "spectral_discriminator"), WINDOW),
        (("v2_nopqmf_small",), 73728),
        (("hybrid",), 73728),
        (("onnx",), 32768),
    ],
    ids=str,
)
def test_both_phases_run_for_every_kind_of_part(config: tuple[str, ...], window: int) -> None:
    model = build(*config)
    check_window(model, window)
    step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu")
    for index in (0, 3, 4):
        losses = step(noise(window=window), index)
        assert all(bool(value.isfinite()) for value in losses.values())
    assert "loss_dis" in losses


def test_a_quantizer_is_used_only_where_it_is_asked_for() -> None:
    override = {"NUM_QUANTIZERS": 2, "CODEBOOK_SIZE": 8, "NOISE_AUGMENTATION": 2}
    for quantize in (False, True):
        model = build("discrete", receptive_field=False, **override)
        losses = TrainingStep(model, phase_1_steps=9, warmup_steps=1, device="cpu", quantize=quantize)(noise(window=32768), 0)
        assert ("regularization" in losses) == quantize
        assert bool(model.encoder.rvq.layers[0]._codebook.inited) == quantize


@pytest.mark.parametrize(("config", "channels"), [(("v2_small",), 1), (("v2_small",), 2), (("v1",), 1), (("v2",), 1)], ids=str)
def test_the_smallest_window_that_is_accepted_trains_and_one_frame_less_does_not(
    config: tuple[str, ...], channels: int
) -> None:
    model = build(*config, channels=channels)
    hop = latent_hop(model)
    with pytest.raises(ConfigurationError, match="too short") as caught:
        check_window(model, hop)
    smallest = int(caught.value.fix.rpartition("at least ")[2].rstrip(")"))
    suggested = int(caught.value.fix.split()[1])
    check_window(model, smallest)
    check_window(model, suggested)
    assert suggested >= smallest
    assert math.log2(suggested).is_integer()
    with pytest.raises(ConfigurationError, match="too short"):
        check_window(model, smallest - hop)
    with pytest.raises(ConfigurationError, match="whole number"):
        check_window(model, smallest + 1)
    step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu", fused_distances=False)
    step(noise(channels, smallest), 0)
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        step(noise(channels, smallest - hop), 0)


def test_phase_1_has_a_step() -> None:
    with pytest.raises(ConfigurationError):
        TrainingStep(build("v2_small", receptive_field=False), phase_1_steps=0, warmup_steps=1, device="cpu")
