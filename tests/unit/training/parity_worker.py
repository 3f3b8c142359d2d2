"""Trains one configuration twice from the same seed and batches: by stock RAVE in a real Lightning Trainer, and by our step.

Run as ``python parity_worker.py NAME...``; prints one JSON line per name. Each name has a process of its own, forked after
the slow imports, for gin holds one configuration per process.

The global random generator is seeded before every step on both sides, as Lightning draws from it between steps; within a
step both must draw the same numbers in the same order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from typing import Any

import torch

from rave_dist import upstream
from rave_dist.training.step import TrainingStep, check_window
from rave_dist.training.validation import set_receptive_field

STEPS, PHASE_1, WARMUP = 10, 5, 4
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
    "v2_small_causal": (["v2_small", "causal"], SMALL, 1, 40960),
    "discrete": (["discrete"], SMALL | RVQ, 1, 73728),
    "wasserstein": (["v2_small", "wasserstein"], SMALL | {"NOISE_AUGMENTATION": 3}, 1, 40960),
    "spherical": (["v2_small", "spherical"], SMALL, 1, 40960),
}


def build(name: str, dtype: torch.dtype) -> Any:
    config, override, channels, window = CASES[name]
    text = upstream.configure(config, override, sample_rate=44100, channels=channels)
    torch.manual_seed(1)
    model = upstream.build_model(text, channels=channels).to(dtype)
    set_receptive_field(model)
    check_window(model, window)
    return model


def batches(name: str, dtype: torch.dtype) -> list[torch.Tensor]:
    _, _, channels, window = CASES[name]
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(STEPS, 2, channels, window, generator=generator, dtype=torch.float64) * 2 - 1
    tone = torch.sin(torch.arange(window, dtype=torch.float64) * 0.05)
    return list((0.1 * noise + 0.3 * tone).to(dtype))


def train_stock(name: str, dtype: torch.dtype) -> tuple[Any, list[Any], list[dict[str, float]]]:
    import pytorch_lightning as pl

    callbacks = upstream.rave_module("model")
    model = build(name, dtype)
    model.warmup = PHASE_1
    beta = callbacks.BetaWarmupCallback()
    beta.warmup_len = WARMUP
    logs: list[dict[str, float]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            torch.manual_seed(100 + index)

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            logs.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            max_epochs=1,
            callbacks=[callbacks.WarmupCallback(), callbacks.QuantizeCallback(), beta, Watch()],
            logger=pl.loggers.TensorBoardLogger(folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, torch.utils.data.DataLoader(batches(name, dtype), batch_size=None))
        optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
    return model, optimizers, logs


def train_ours(name: str, dtype: torch.dtype) -> tuple[Any, list[Any], list[dict[str, float]]]:
    model = build(name, dtype)
    step = TrainingStep(model, phase_1_steps=PHASE_1, warmup_steps=WARMUP, device="cpu")
    logs = []
    for index, batch in enumerate(batches(name, dtype)):
        torch.manual_seed(100 + index)
        logs.append({key: float(value) for key, value in step(batch, index).items()})
    return model, [step.generator_optimizer.state_dict(), step.discriminator_optimizer.state_dict()], logs


def largest(ours: dict[str, torch.Tensor], stock: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == stock.keys(), ours.keys() ^ stock.keys()
    return max(float((ours[key].double() - stock[key].double()).abs().max()) for key in ours if ours[key].numel())


def moments(optimizer: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{key}": torch.as_tensor(value) for index, state in optimizer["state"].items() for key, value in state.items()
    } | {f"lr.{index}": torch.tensor(group["lr"]) for index, group in enumerate(optimizer["param_groups"])}


def compare(name: str) -> dict[str, Any]:
    stock, stock_optimizers, stock_logs = train_stock(name, torch.float64)
    ours, our_optimizers, our_logs = train_ours(name, torch.float64)
    start = build(name, torch.float64).state_dict()
    logged = [
        abs(mine[key] - theirs[key]) for mine, theirs in zip(our_logs, stock_logs, strict=True) for key in mine if key in theirs
    ]
    return {
        "name": name,
        "state": largest(ours.state_dict(), stock.state_dict()),
        "optimizers": [largest(moments(a), moments(b)) for a, b in zip(our_optimizers, stock_optimizers, strict=True)],
        "logged": max(logged),
        "num_logged": len(logged),
        "unknown_names": sorted({key for mine in our_logs for key in mine} - {key for theirs in stock_logs for key in theirs}),
        "moved": largest(ours.state_dict(), start),
        "crop": bool(ours.receptive_field.sum()),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    upstream.rave_module()
    for name in sys.argv[1:] or CASES:
        child = os.fork()
        if child == 0:
            print(json.dumps(compare(name)), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
