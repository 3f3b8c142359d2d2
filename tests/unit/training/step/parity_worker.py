"""Trains one configuration twice from the same seed and batches: by stock RAVE in a real Lightning Trainer, and by our step.

Run as ``python parity_worker.py CASE...``; prints one JSON line per case. Each case has a process of its own, forked after
the slow imports, for gin holds one configuration per process.

The global random generator is seeded before every step on both sides, as Lightning draws from it between steps; within a
step both must draw the same numbers in the same order.

RAVE's log distance has a slope of 1e7 where the output is nearly silent (``log_epsilon`` 1e-7) and a curvature of 1e14: there,
training multiplies a rounding difference of 1e-15 by a thousand with every step, whoever computes it. So the steps are
compared with ``log_epsilon`` 1e-3 on both sides; cases that end in ``:stock`` keep 1e-7 and are compared with RAVE's own
distance modules and PyTorch's plain Adam in our step, and our default step with what one rounding in the initial weights does
to stock RAVE.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from typing import Any

import pytorch_lightning as pl  # before RAVE, whose classes then derive from it
import torch

from rave_dist.rave.config import configure
from rave_dist.rave.imports import rave_module
from rave_dist.rave.models import build_model
from rave_dist.rave.window import check_window
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.step.training_step import TrainingStep

STEPS, PHASE_1, WARMUP = 9, 4, 3  # discriminator steps: 4, 6, 8 (4 and 8 for v2); generator steps of phase 2: 5, 7 (5, 6, 7)
SMALL = {"CAPACITY": 4, "LATENT_SIZE": 6}
BETA = {"BetaWarmupCallback.initial_value": 1e-3, "BetaWarmupCallback.target_value": 0.5}
RVQ = {"NUM_QUANTIZERS": 2, "CODEBOOK_SIZE": 16, "NOISE_AUGMENTATION": 4}

# name: configurations, overrides, channels, window
CASES: dict[str, tuple[list[str], dict[str, Any], int, int]] = {
    "v1": (["v1"], SMALL | BETA, 1, 32768),
    "v1_stereo": (["v1"], SMALL | BETA, 2, 32768),
    "v2": (["v2"], SMALL, 1, 73728),
    "v2_small": (["v2_small"], SMALL | BETA, 1, 40960),
    "v2_small_stereo": (["v2_small"], SMALL | BETA, 2, 40960),
    "discrete": (["discrete"], SMALL | RVQ, 1, 73728),
    "wasserstein": (["v2_small", "wasserstein"], SMALL | {"NOISE_AUGMENTATION": 3}, 1, 40960),
    "spherical": (["v2_small", "spherical"], SMALL, 1, 40960),
}


_receptive_field: list[torch.Tensor] = []  # of the one case of this process


def build(case: str, dtype: torch.dtype, *, as_stock: bool = False) -> Any:
    name, _, preset = case.partition(":")
    config, override, channels, window = CASES[name]
    epsilon = {} if preset == "stock" else {"core.AudioDistanceV1.log_epsilon": 1e-3}
    text = configure(config, override | epsilon, sample_rate=44100, channels=channels)
    torch.manual_seed(1)
    model = rave_module().RAVE(n_channels=channels) if as_stock else build_model(text, channels=channels)
    model = model.to(dtype)
    if not _receptive_field:
        set_receptive_field(model)
        _receptive_field.append(model.receptive_field)
    model.receptive_field.copy_(_receptive_field[0])
    check_window(model, window)
    return model


def batches(case: str, dtype: torch.dtype) -> list[torch.Tensor]:
    _, _, channels, window = CASES[case.partition(":")[0]]
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(STEPS, 2, channels, window, generator=generator, dtype=torch.float64) * 2 - 1
    tone = torch.sin(torch.arange(window, dtype=torch.float64) * 0.05)
    return list((0.1 * noise + 0.3 * tone).to(dtype))


Trained = tuple[dict[str, torch.Tensor], list[Any], list[dict[str, float]]]


def train_stock(case: str, *, nudge: bool = False) -> Trained:
    callbacks = rave_module("model")
    model = build(case, torch.float64, as_stock=True)
    if nudge:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, 2.0)))
    model.warmup = PHASE_1
    model.validation_epoch_end = None  # Lightning 2 refuses a model with this hook; nothing is validated here
    beta = callbacks.BetaWarmupCallback()
    beta.warmup_len = WARMUP
    logs: list[dict[str, float]] = []

    class NonFiniteMonitor(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            torch.manual_seed(100 + index)

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            logs.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            max_epochs=1,
            callbacks=[callbacks.WarmupCallback(), callbacks.QuantizeCallback(), beta, NonFiniteMonitor()],
            logger=pl.loggers.TensorBoardLogger(folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, torch.utils.data.DataLoader(batches(case, torch.float64), batch_size=None))
        return model.state_dict(), [optimizer.state_dict() for optimizer in trainer.optimizers], logs


def train_ours(case: str, *, fused_distances: bool = True) -> Trained:
    model = build(case, torch.float64)
    step = TrainingStep(model, phase_1_steps=PHASE_1, warmup_steps=WARMUP, device="cpu", fused_distances=fused_distances)
    for optimizer in (step.generator_optimizer, step.discriminator_optimizer):
        optimizer.param_groups[0].update(fused=fused_distances)
    logs = []
    for index, batch in enumerate(batches(case, torch.float64)):
        torch.manual_seed(100 + index)
        logs.append({key: float(value) for key, value in step(batch, index).items()})
    return model.state_dict(), [step.generator_optimizer.state_dict(), step.discriminator_optimizer.state_dict()], logs


def largest(ours: dict[str, torch.Tensor], stock: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == stock.keys(), ours.keys() ^ stock.keys()
    return max(float((ours[key].double() - stock[key].double()).abs().max()) for key in ours if ours[key].numel())


def moments(optimizer: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{key}": torch.as_tensor(value) for index, state in optimizer["state"].items() for key, value in state.items()
    } | {f"lr.{index}": torch.tensor(group["lr"]) for index, group in enumerate(optimizer["param_groups"])}


def difference(ours: Trained, stock: Trained) -> dict[str, Any]:
    return {
        "state": largest(ours[0], stock[0]),
        "optimizers": max(largest(moments(a), moments(b)) for a, b in zip(ours[1], stock[1], strict=True)),
        "logged": max(
            abs(mine[key] - theirs[key]) for mine, theirs in zip(ours[2], stock[2], strict=True) for key in mine.keys() & theirs
        ),
    }


def gradients(case: str) -> float:
    """Relative difference of the single-precision gradient of a network, over one step of each kind.

    Under the hinge loss, an untrained discriminator's gradients are differences of nearly equal sums, which in single precision
    depend on the order of adding. So the scores are moved to where half of the real ones are right already, and the gradient
    is compared as one vector; its small parts are held by the runs in double precision.
    """
    worst = 0.0
    for index, trained in ((0, "generator"), (PHASE_1 + 1, "generator"), (PHASE_1, "discriminator")):
        found = []
        for stock in (True, False):
            model = build(case, torch.float32)
            with torch.no_grad():
                for name, parameter in model.discriminator.named_parameters():
                    if name.endswith("bias") and parameter.numel() == 1:
                        parameter.fill_(1.0)
            step = TrainingStep(model, phase_1_steps=PHASE_1, warmup_steps=WARMUP, device="cpu")
            torch.manual_seed(100 + index)
            batch = batches(case, torch.float32)[index].clone()
            if stock:
                model.optimizers = lambda step=step: (step.generator_optimizer, step.discriminator_optimizer)
                model.log = model.log_dict = lambda *args: None
                model.warmed_up, model.beta_factor = step.phase(index) == 2, step.beta(index)
                model.training_step(batch, index)
            else:
                step(batch, index)
                assert step.is_discriminator_step(index) == (trained == "discriminator")
            part = [model.discriminator] if trained == "discriminator" else [model.encoder, model.decoder]
            found.append(
                {f"{i}.{n}": p.grad for i, m in enumerate(part) for n, p in m.named_parameters() if p.grad is not None}
            )
        theirs, ours = found
        assert theirs
        assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
        expected, got = (torch.cat([gradients[key].flatten() for key in theirs]) for gradients in (theirs, ours))
        worst = max(worst, float((got - expected).norm() / expected.norm()))
    return worst


def compare(case: str) -> dict[str, Any]:
    stock = train_stock(case)
    if case.endswith(":stock"):
        ours = train_ours(case, fused_distances=False)
        chaos = {
            "fused": difference(train_ours(case), stock)["state"],
            "nudged": difference(train_stock(case, nudge=True), stock)["state"],
        }
    else:
        ours = train_ours(case)
        chaos = {"gradients": gradients(case)}
    start = dict(build(case, torch.float64).named_parameters())
    return {
        "case": case,
        **difference(ours, stock),
        **chaos,
        "moved": {
            part: max(float((p - start[n]).abs().max()) for n, p in ours[0].items() if n in start and n.startswith(part))
            for part in ("encoder", "decoder", "discriminator")
        },
        "crop": [int(value) for value in ours[0]["receptive_field"]],
        "beta": [log["beta_factor"] for log in ours[2]],
        "names": sorted({key for log in ours[2] for key in log}),
        "stock_names": sorted({key for log in stock[2] for key in log}),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rave_module()
    for case in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            print(json.dumps(compare(case)), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"{case} failed")


if __name__ == "__main__":
    main()
