"""Our training step against stock ``RAVE.training_step``: CPU-seconds of both phases for the same mathematics.

Each side is a process with a model from the same seed and the same batches; they run one phase at a time, alternately, so that
drift of the machine affects both. Stock is called as by Lightning's loop, with its optimizers, without the loop's overhead.
Phase 2 is a cycle of one discriminator step and its generator steps (``update_discriminator_every``). Their parity is tested
in ``tests/unit/training/step/test_step_parity.py``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from harness import report

WINDOW, SAMPLE_RATE = 131072, 44100
QUICK = {"v1": (4, 3), "v2_small": (4, 3), "v2": (4, 2)}  # configuration: windows per batch, rounds
FULL = {"v1": (8, 5), "v2_small": (8, 5), "v2": (4, 5)}


def serve(side: str, config: str, batch: int) -> None:
    """One side: for every phase named on standard input, runs its steps and prints CPU-seconds per step."""
    import torch

    from rave_dist.rave.config import configure
    from rave_dist.rave.models import build_model
    from rave_dist.training.evaluation.receptive_field import set_receptive_field
    from rave_dist.training.step.training_step import TrainingStep

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(configure([config], {}, sample_rate=SAMPLE_RATE, channels=1), channels=1)
    set_receptive_field(model)
    model.train()
    cycle = int(model.update_discriminator_every)
    do: Callable[[torch.Tensor, int], Any]
    if side == "ours":
        do = TrainingStep(model, phase_1_steps=cycle, warmup_steps=1, device="cpu")
    else:
        optimizers = [part["optimizer"] for part in model.configure_optimizers()]
        model.optimizers = lambda: optimizers
        model.log = model.log_dict = lambda *args, **kwargs: None

        def do(x: torch.Tensor, index: int) -> None:
            model.warmed_up = index >= cycle
            model.training_step(x, index)

    for line in sys.stdin:
        steps = range(1) if line.strip() == "phase 1" else range(cycle, 2 * cycle)
        batches = [0.2 * torch.rand(batch, 1, WINDOW) - 0.1 for _ in steps]
        began = time.process_time()
        for index, x in zip(steps, batches, strict=True):
            do(x, index)
        print((time.process_time() - began) / len(steps), flush=True)


def measure(config: str, batch: int, rounds: int) -> dict[tuple[str, str], float]:
    """CPU-seconds per step by phase and side: medians over the rounds."""
    sides = {
        side: subprocess.Popen(
            [sys.executable, __file__, "--serve", side, config, str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in ("stock", "ours")
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for index in range(rounds + 1):  # the first round allocates memory and chooses algorithms
        for phase in ("phase 1", "phase 2"):
            for side in list(sides) if index % 2 else list(sides)[::-1]:
                process = sides[side]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{phase}\n")
                process.stdin.flush()
                answer = process.stdout.readline()
                if not answer:
                    raise SystemExit(f"the {side} side of {config} ended early")
                if index:
                    seconds.setdefault((phase, side), []).append(float(answer))
    for process in sides.values():
        process.communicate()
    return {key: statistics.median(values) for key, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--full", action="store_true", help="v1 and v2_small at RAVE's own batch of 8")
    parser.add_argument("--serve", nargs=3, metavar=("SIDE", "CONFIG", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        side, config, batch = arguments.serve
        serve(side, config, int(batch))
        return
    rows, ratios = [], {}
    for config, (batch, rounds) in (FULL if arguments.full else QUICK).items():
        seconds = measure(config, batch, rounds)
        for phase in ("phase 1", "phase 2"):
            stock, ours = seconds[phase, "stock"], seconds[phase, "ours"]
            ratios[f"{config}, {phase}"] = stock / ours
            rows.append({"step": f"{config}, {phase}", "batch": f"{batch} x {WINDOW}", "stock": stock, "ours": ours})
    report(
        "training step",
        rows,
        ratios,
        json=arguments.json,
        notes=[
            "CPU-seconds per step, one thread, medians of interleaved rounds; phase 2: mean of a discriminator step and "
            "its generator steps",
            "stock RAVE's step is called directly, without Lightning's loop; repaired: torchaudio's CUDA library skipped, loss "
            "weights not shared between models",
        ],
    )


if __name__ == "__main__":
    main()
