"""Conversion compared with the machine's matrix product, on one core: v2_small at full size with random weights.

    python benchmarks/convert_limit.py [--json] [--rounds N]

In one process, alternately: a product of two matrices of 2048 x 2048 (float32, what the library of the machine does best), and
the conversion of 20 s of noise (mono, 44100 Hz) in the default chunks. The operations of a second of audio are counted in the
model's own network (PyTorch's FlopCounterMode: convolutions and products, a multiplication and an addition each). The share of
the limit is that of the operations per CPU-second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import convert
import numpy as np
from harness import report

SECONDS, SIZE, GOAL = 20, 2048, 0.88


def gflop_per_second_of_audio(run: Path) -> float:
    """Counted operations, in 10^9, of a model's encoder and decoder for a second of audio."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from rave_dist.rave.exportable import OfflineRave
    from rave_dist.rave.exportable_noise import place
    from rave_dist.rave.models import build_model, use_streaming

    use_streaming(False)
    offline = OfflineRave(build_model((run / "config.gin").read_text(), channels=1).eval())
    samples = 10 * convert.SAMPLE_RATE // offline.hop * offline.hop
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        offline.convert(torch.zeros(1, 1, samples), *place(0, 0), 1.0, 1.0)
    return counter.get_total_flops() / 1e9 * convert.SAMPLE_RATE / samples


def product_gflops(device: Any = "cpu", *, size: int = SIZE, times: int = 10) -> float:
    """10^9 operations per second (CPU-second on a CPU) of a product of matrices."""
    import torch

    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    on_cpu = torch.device(device).type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    torch.matmul(a, b)
    if not on_cpu:
        torch.cuda.synchronize()
    began = clock()
    for _ in range(times):
        torch.matmul(a, b)
    if not on_cpu:
        torch.cuda.synchronize()
    return 2 * size**3 * times / (clock() - began) / 1e9


def measured(folder: Path, rounds: int) -> tuple[float, float]:
    """Medians of the product's 10^9 operations per CPU-second, and of CPU-seconds per second of audio."""
    import torch

    from rave_dist.conversion.convert import Converter

    torch.set_num_threads(1)
    converter = Converter.load(str(folder / "store"), convert.NAME)
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, SECONDS * convert.SAMPLE_RATE), dtype=np.float32)
    products, seconds = [], []
    for number in range(rounds + 1):
        products.append(product_gflops())
        began = time.process_time()
        for _ in converter.convert([noise], sample_rate=convert.SAMPLE_RATE, channels=1):
            pass
        seconds.append((time.process_time() - began) / SECONDS)
        if not number:  # it warms up
            products.clear()
            seconds.clear()
    return statistics.median(products), statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    os.environ |= convert.ENVIRONMENT
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        subprocess.run([sys.executable, convert.__file__, "--prepare", name], check=True, stdout=sys.stderr)
        folder = Path(name)
        work = gflop_per_second_of_audio(folder / "run")
        limit, seconds = measured(folder, arguments.rounds)
    report(
        "convert, compared with the limit of the machine",
        [
            {"": "matrix product", "GFLOP per CPU-second": limit},
            {"": "conversion", "GFLOP per CPU-second": work / seconds, "CPU-seconds per second of audio": seconds},
        ],
        {"share of the limit": work / seconds / limit},
        json=arguments.json,
        notes=[f"goal: {GOAL:g}", f"v2_small: {work:.2f} GFLOP per second of audio"],
    )


if __name__ == "__main__":
    main()
