"""Training batches: CPU milliseconds per window of RAVE's data path, of ours, and of ours with every augmentation.

Stock is the work of its loader's workers on a sample after reading: the transforms of ``rave.dataset.get_dataset`` in its
order, on chunks of two windows as made by ``rave preprocess``, without the database and the copies between processes. Ours is
all of `Windows`. Measured alternately in one process with one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from harness import report

from rave_dist.allocator import hold_freed_memory
from rave_dist.library.schema import AUGMENTATIONS
from rave_dist.rave.imports import rave_module
from rave_dist.training.data.loader import Windows

WINDOW, BATCH, SAMPLE_RATE, SECONDS = 131072, 8, 44100, 60


class Audio:
    """A minute of noise as PCM."""

    pcm = (3000 * np.random.default_rng(0).standard_normal((1, SECONDS * SAMPLE_RATE))).astype(np.int16)


def stock() -> Callable[[], object]:
    dataset, transforms = rave_module("dataset"), rave_module("transforms")
    chain = transforms.Compose(
        [
            lambda x: x.astype(np.float32),
            transforms.RandomCrop(WINDOW),
            transforms.RandomApply(lambda x: dataset.random_phase_mangle(x, 20, 2000, 0.99, SAMPLE_RATE), p=0.8),
            transforms.Dequantize(16),
            lambda x: x.astype(np.float32),
        ]
    )
    chunks = Audio.pcm[:, : Audio.pcm.shape[-1] // (2 * WINDOW) * 2 * WINDOW].reshape(1, -1, 2 * WINDOW)
    place = iter(range(10**9))

    def batch() -> object:
        rows = [chunks[:, next(place) % chunks.shape[1]] for _ in range(BATCH)]
        return torch.stack([torch.from_numpy(chain(row.astype(np.float32) / (2**15 - 1))) for row in rows])

    return batch


def ours(augment: dict[str, float]) -> Callable[[], object]:
    return Windows(
        [Audio()], window=WINDOW, batch=BATCH, seed=0, device="cpu", sample_rate=SAMPLE_RATE, augment=augment
    ).next_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hold_freed_memory()  # like a training process
    variants = {
        "stock: mangle, dequantisation": stock(),
        "ours: the same": ours({"mangle": AUGMENTATIONS["mangle"]}),
        "ours: low-data": ours(dict(AUGMENTATIONS)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(arguments.rounds + 1):  # the first round allocates memory
        for name in list(variants) if index % 2 else list(variants)[::-1]:
            began = time.process_time()
            variants[name]()
            if index:
                seconds[name].append(time.process_time() - began)
    milliseconds = {name: 1000 * statistics.median(values) / BATCH for name, values in seconds.items()}
    base = milliseconds["stock: mangle, dequantisation"]
    report(
        "batches",
        [{"": name, "CPU ms per window": value} for name, value in milliseconds.items()],
        {name.removeprefix("ours: "): base / value for name, value in milliseconds.items() if name.startswith("ours")},
        json=arguments.json,
        notes=[f"batches of {BATCH} windows of {WINDOW} samples, mono; medians of {arguments.rounds} interleaved batches"],
    )


if __name__ == "__main__":
    main()
