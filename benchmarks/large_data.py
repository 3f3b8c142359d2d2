"""Datasets larger than memory: what a training process holds, what it reads from the store, how well it shuffles.

    python benchmarks/large_data.py [--json] [--gigabytes 6] [--steps 100] [--epochs 2]

A dataset of noise is written as shards. A small model is then trained on it in a process whose anonymous resident memory is
sampled, which the system cannot take back; pages of files are not in it. A process that exceeds ``--memory`` fails.
Afterwards the same process draws windows for some epochs, without training. Reported are the peak of its anonymous resident
memory, the bytes read from the store, and how windows that follow each other lie in the dataset; independent uniform positions,
as a perfect shuffle has, are a third of the dataset apart and uncorrelated. CPU per batch is compared with windows from
memory, on a part of the dataset that fits, alternately in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import report

RATE, SOURCE_SECONDS, WINDOW, BATCH = 44_100, 600, 131_072, 8
_IN_MEMORY_BYTES = 256 << 20
_SAMPLE_SECONDS = 0.05


def generate(store: Any, instrument: str, seconds: float) -> Any:
    """Writes a dataset of mono noise, in sources of ten minutes; returns its manifest."""
    from rave_dist.dataset.shards import ROW_SECONDS, ShardWriter
    from rave_dist.identity import content_id
    from rave_dist.records import DatasetManifest, SourceRecord, now

    random, left, records = np.random.default_rng(0), round(seconds * RATE), []
    noise = random.integers(-3000, 3000, (1, ROW_SECONDS * RATE), np.int16)
    with ShardWriter(store, instrument, RATE) as writer:
        while left:
            samples = min(left, SOURCE_SECONDS * RATE)
            name = content_id([instrument, len(records)])
            for start in range(0, samples, ROW_SECONDS * RATE):
                row = np.roll(noise, int(random.integers(noise.size)))
                writer.write(name, start, row[:, : samples - start])
            records.append(
                SourceRecord(
                    **{"source": f"{len(records)}.wav", "source_id": name, "fingerprint": name, "pcm_sha256": name},
                    **{"seconds": samples / RATE, "used_seconds": samples / RATE, "samples": samples, "format": "noise"},
                    **{"sample_rate": RATE, "channels": 1, "spans": ((0, samples),)},
                    **{"peak": 0.1, "rms": 0.05, "dc": 0.0, "clipped_samples": 0},
                )
            )
            left -= samples
    manifest = DatasetManifest(
        **{"id": content_id([instrument, seconds]), "instrument": instrument, "sample_rate": RATE, "channels": 1},
        **{"sources": tuple(records), "rejected": (), "shards": tuple(writer.shards), "used_seconds": seconds},
        created_at=now(),
    )
    manifest.save(store, manifest.folder.manifest)
    return manifest


class _CountedFile:
    """A file that counts the bytes that are read."""

    read_bytes = 0
    closed = False

    def __init__(self, file: Any) -> None:
        self.seek, self.tell, self.close, self._read = file.seek, file.tell, file.close, file.read

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._read(size)
        _CountedFile.read_bytes += len(data)
        return data


class _AnonymousMemory(threading.Thread):
    """Samples the anonymous resident memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.partition("RssAnon:")[2].split()[0]))
            time.sleep(_SAMPLE_SECONDS)


def run(store_uri: str, instrument: str, dataset: str, library: str, *, steps: int, epochs: float, limit: int) -> None:
    """In a separate process: trains, draws windows for some epochs, and prints what it measured as JSON."""
    from rave_dist.dataset.read import load_manifest
    from rave_dist.dataset.split import split_dataset
    from rave_dist.options import Budget, CheckpointPolicy
    from rave_dist.records import TrainingSpec
    from rave_dist.storage.store import Store
    from rave_dist.training.data.loader import Windows
    from rave_dist.training.worker import work

    memory, store, opens, draw = _AnonymousMemory(), Store(store_uri), Store.open, Windows.next_batch
    memory.start()
    moments: list[tuple[float, float]] = []

    @contextmanager
    def opened(self: Store, key: str) -> Iterator[Any]:
        with opens(self, key) as file:
            yield _CountedFile(file)

    def drawn(self: Windows) -> Any:
        moments.append((time.time(), time.process_time()))
        return draw(self)

    Store.open, Windows.next_batch = opened, drawn  # type: ignore[method-assign]
    spec = TrainingSpec(
        **{"library": library, "instrument": instrument, "dataset": dataset, "config": ("v2_small",), "seed": 1},
        **{"override": {"CAPACITY": 4, "LATENT_SIZE": 8}, "sample_rate": RATE, "channels": 1, "window": 40960, "batch": 2},
        **{"budget": Budget(steps=steps), "checkpoint": CheckpointPolicy()},
    )
    record = work(store, spec, threads=1)
    assert record.error is None, record.error
    (first, cpu), (last, cpu_at_end) = moments[-steps], moments[-1]
    training_peak, of_training = memory.peak, _CountedFile.read_bytes
    manifest = load_manifest(store, instrument, dataset)
    segments = split_dataset(store, manifest, window=spec.window or WINDOW).train
    windows = Windows(segments, window=WINDOW, batch=BATCH, seed=0, device="cpu", augment=None)
    starts = np.cumsum([0, *(segment.pcm.shape[1] for segment in segments)])
    places = []
    for _ in range(round(epochs * starts[-1] / (BATCH * WINDOW))):
        draw(windows)
        places += [(starts[segment] + offset) / starts[-1] for segment, offset in windows.places]
    answer = {
        **{"first": first, "last": last, "steps_per_second": (steps - 1) / (last - first)},
        **{"cpu_per_step": (cpu_at_end - cpu) / (steps - 1), "peak": memory.peak, "training_peak": training_peak},
        **{"store_bytes": _CountedFile.read_bytes, "of_training": of_training, "dataset_bytes": 2 * int(starts[-1])},
        **{"windows": len(places), **(shuffle(np.array(places)) if places else {})},
    }
    assert memory.peak <= limit, f"{memory.peak / 1e9:.2f} GB of anonymous memory"
    print(json.dumps(answer))


def shuffle(places: np.ndarray) -> dict[str, float]:
    """How windows that follow each other lie in a dataset of length 1: their correlation, and their mean distance."""
    return {
        "correlation": float(np.corrcoef(places[:-1], places[1:])[0, 1]),
        "distance": float(np.abs(np.diff(places)).mean()),
    }


def start(store: Any, manifest: Any, library: str, **settings: Any) -> subprocess.Popen[str]:
    """Starts `run` in a separate process."""
    request = json.dumps([[store.uri, manifest.instrument, manifest.id, library], settings])
    return subprocess.Popen([sys.executable, __file__, "--run", request], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a started process measured."""
    output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def milliseconds_per_batch(store: Any, manifest: Any, rounds: int) -> dict[str, float]:
    """CPU time of a batch from the copy on disk and from memory, of the part of a dataset that fits."""
    import torch

    from rave_dist.dataset.read import open_segments, outline, read_segments
    from rave_dist.training.data.loader import Windows

    torch.set_num_threads(1)
    count = max(1, _IN_MEMORY_BYTES // (2 * RATE * SOURCE_SECONDS))
    segments = open_segments(store, manifest)[:count]
    sides = {"disk": segments, "memory": read_segments(store, manifest, outline(manifest)[:count])}
    windows = {name: Windows(side, window=WINDOW, batch=BATCH, seed=0, device="cpu") for name, side in sides.items()}
    spent: dict[str, list[float]] = {name: [] for name in windows}
    for index in range(rounds + 2):  # the first two allocate memory
        batches = {}
        for name in list(windows) if index % 2 else list(windows)[::-1]:
            began = time.process_time()
            batches[name] = windows[name].next_batch()
            if index > 1:
                spent[name].append(1000 * (time.process_time() - began))
        assert torch.equal(batches["disk"], batches["memory"])
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--memory", type=float, default=1.5, help="anonymous memory that a process may have, in GB")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        places, settings = json.loads(arguments.run)
        return run(*places, **settings)
    from rave_dist.storage.store import Store

    limit = round(1e9 * arguments.memory)
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        os.environ["RAVE_DIST_CACHE"] = f"{name}/cache"
        store = Store(f"{name}/store")
        large = generate(store, "large", 1e9 * arguments.gigabytes / (2 * RATE))
        settings = {"steps": arguments.steps, "limit": limit}
        alone = finish(start(store, large, "alone", epochs=arguments.epochs, **settings))
        batch = milliseconds_per_batch(store, large, 20)
    shards = sum(shard.bytes for shard in large.shards)
    epochs = alone["windows"] * WINDOW * 2 / alone["dataset_bytes"]
    rows = [
        {"": "dataset, GB", "measured": shards / 1e9},
        {"": "most that it may have, GB", "measured": limit / 1e9},
        {"": "peak anonymous memory, training, GB", "measured": alone["training_peak"] / 1e9},
        {"": "peak anonymous memory, training and epochs, GB", "measured": alone["peak"] / 1e9},
        {"": "read from the store, GB", "measured": alone["store_bytes"] / 1e9},
        {"": "epochs drawn", "measured": epochs},
        {"": "correlation of consecutive windows' positions (perfect: 0)", "measured": alone["correlation"]},
        {"": "their mean distance, of the dataset (perfect: 0.333)", "measured": alone["distance"]},
        {"": "CPU s per training step", "measured": alone["cpu_per_step"]},
        {"": f"CPU ms per batch of {BATCH} windows, from disk", "measured": batch["disk"]},
        {"": "the same, from memory", "measured": batch["memory"]},
    ]
    report(
        "large data",
        rows,
        {
            "dataset over peak memory": shards / alone["peak"],
            "reads of the store per epoch": alone["store_bytes"]
            / shards
            * alone["dataset_bytes"]
            / alone["windows"]
            / 2
            / WINDOW,
        },
        json=arguments.json,
        notes=[
            f"{arguments.steps} steps of a small v2_small (batch 2), with its dry run; then windows of {WINDOW} samples;"
            f" a random permutation of {alone['windows']} windows has a correlation of ±{alone['windows'] ** -0.5:.3f}",
            "batches from disk and from memory are compared sample by sample; medians of 20, alternately",
        ],
    )


if __name__ == "__main__":
    main()
