"""Conversion of many short recordings: `rave generate` against `rave-dist convert`, both as whole commands.

    python benchmarks/convert_short.py [--json] [--rounds N] [--files N] [--seconds S]

The model is v2_small at full size with random weights; the recordings are noise (mono, 44100 Hz, 16 bits). CPU-seconds and
memory of the whole process tree are measured alternately. What a file costs in addition to the model is measured in one
process, with files of a tenth of a second: a worker's conversion of a file, less that of the same sound by the model alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import convert
import soundfile
from convert_memory import write_noise
from harness import Usage, interleave, measure, median, report

_WARM_UP = 5


def _measured(folder: Path, command: list[str], result: str, files: int) -> Usage:
    for name in ("stock", "command", "store/conversions"):
        shutil.rmtree(folder / name, ignore_errors=True)
    usage = measure(command, env=convert.ENVIRONMENT, cwd=folder, timeout=1800)
    made = len(list((folder / result).rglob("*.wav")))
    assert made == files, f"{made} of {files} recordings were converted"
    return usage


def overhead(folder: Path) -> None:
    """In a separate process: prints the CPU-seconds of a worker for a file, and of the model alone, which take turns."""
    import torch

    from rave_dist.conversion.convert import Converter
    from rave_dist.conversion.corpus import plan_conversion
    from rave_dist.conversion.item import convert_source
    from rave_dist.options import DEFAULT_CHUNK_SECONDS
    from rave_dist.records import ConversionParameters
    from rave_dist.registry.store import find
    from rave_dist.storage.store import Store

    torch.set_num_threads(1)
    store = Store(str(folder / "store"))
    card = find(store, convert.NAME)
    converter = Converter.load(store, card)
    plan = plan_conversion(card, [str(folder / "tiny")], str(folder / "overhead"), ConversionParameters())
    whole = alone = 0.0
    for number, task in enumerate(plan.tasks):
        sound, rate = soundfile.read(task.source.uri, dtype="float32", always_2d=True)
        began = time.process_time()
        convert_source(store, task, [(plan, converter)], chunk_seconds=DEFAULT_CHUNK_SECONDS)
        between = time.process_time()
        converter.convert_array(sound.T, sample_rate=rate)
        if number >= _WARM_UP:
            whole += between - began
            alone += time.process_time() - between
    count = len(plan.tasks) - _WARM_UP
    print(json.dumps({"worker": whole / count, "model": alone / count}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--overhead", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.overhead:
        return overhead(Path(arguments.overhead))
    files, seconds = arguments.files, arguments.seconds
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        prepare = [sys.executable, convert.__file__, "--prepare", name]
        subprocess.run(prepare, check=True, env=os.environ | convert.ENVIRONMENT, stdout=sys.stderr)
        for number in range(files):
            write_noise(folder / "in" / f"{number:04}.wav", seconds)
            write_noise(folder / "tiny" / f"{number:04}.wav", 0.1)
        alone = [sys.executable, __file__, "--overhead", name]
        done = subprocess.run(alone, check=True, env=os.environ | convert.ENVIRONMENT, stdout=subprocess.PIPE)
        each = json.loads(done.stdout)
        model = ["--model", f"{convert.NAME}_run"]
        stock = [sys.executable, "-W", "ignore", "-c", convert.STOCK, *model, "--input", "in", "--out_path", "stock"]
        ours = [sys.executable, "-m", "rave_dist", "convert", "--store", "store", "--model", convert.NAME]
        usages = {
            side: median(found)
            for side, found in interleave(
                {
                    "rave generate": lambda: _measured(folder, stock, "stock", files),
                    "rave-dist convert": lambda: _measured(folder, [*ours, "in", "command"], "command", files),
                },
                rounds=arguments.rounds,
            ).items()
        }
    theirs, whole = usages.values()
    rows = [
        {"": side, "CPU s": u.cpu_seconds, "wall s": u.wall_seconds, "peak MB": u.peak_rss_bytes / 1e6}
        for side, u in usages.items()
    ]
    report(
        f"convert, {files} files of {seconds:g} s, whole commands",
        rows,
        {
            "cpu": theirs.cpu_seconds / whole.cpu_seconds,
            "memory": theirs.peak_rss_bytes / whole.peak_rss_bytes,
            "CPU-milliseconds of a file in addition to the model": 1000 * (each["worker"] - each["model"]),
        },
        json=arguments.json,
        notes=["goals: 5 times less CPU, at most 15 CPU-milliseconds of a file", convert.REPAIRS],
    )


if __name__ == "__main__":
    main()
