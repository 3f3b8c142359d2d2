"""Conversion of many short recordings: `rave generate` against `rave-dist convert`, both as whole commands.

    python benchmarks/convert_short.py [--json] [--rounds N] [--files N] [--seconds S]

The model is v2_small at full size with random weights; the recordings are noise (mono, 44100 Hz, 16 bits). CPU-seconds and
memory of the whole process tree are measured alternately. What a file costs in addition to its audio is the difference between
many files of a tenth of a second and one of the same length.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import convert
from convert_memory import write_noise
from harness import Usage, interleave, measure, median, report


def _measured(folder: Path, command: list[str], result: str, files: int) -> Usage:
    for name in ("stock", "command", "store/conversions"):
        shutil.rmtree(folder / name, ignore_errors=True)
    usage = measure(command, env=convert.ENVIRONMENT, cwd=folder, timeout=1800)
    made = len(list((folder / result).rglob("*.wav")))
    assert made == files, f"{made} of {files} recordings were converted"
    return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    files, seconds = arguments.files, arguments.seconds
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        prepare = [sys.executable, convert.__file__, "--prepare", name]
        subprocess.run(prepare, check=True, env=os.environ | convert.ENVIRONMENT, stdout=sys.stderr)
        for number in range(files):
            write_noise(folder / "in" / f"{number:04}.wav", seconds)
            write_noise(folder / "tiny" / f"{number:04}.wav", 0.1)
        write_noise(folder / "one" / "0000.wav", 0.1 * files)
        model = ["--model", f"{convert.NAME}_run"]
        stock = [sys.executable, "-W", "ignore", "-c", convert.STOCK, *model, "--input", "in", "--out_path", "stock"]
        ours = [sys.executable, "-m", "rave_dist", "convert", "--store", "store", "--model", convert.NAME]
        usages = {
            side: median(found)
            for side, found in interleave(
                {
                    "rave generate": lambda: _measured(folder, stock, "stock", files),
                    "rave-dist convert": lambda: _measured(folder, [*ours, "in", "command"], "command", files),
                    f"rave-dist convert, {files} files of 0.1 s": lambda: _measured(
                        folder, [*ours, "tiny", "command"], "command", files
                    ),
                    f"rave-dist convert, 1 file of {0.1 * files:g} s": lambda: _measured(
                        folder, [*ours, "one", "command"], "command", 1
                    ),
                },
                rounds=arguments.rounds,
            ).items()
        }
    theirs, whole, tiny, one = usages.values()
    each = (tiny.cpu_seconds - one.cpu_seconds) / max(1, files - 1)
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
            "CPU-milliseconds of a file in addition to its audio": 1000 * each,
        },
        json=arguments.json,
        notes=["goals: 5 times less CPU, at most 15 CPU-milliseconds of a file", convert.REPAIRS],
    )


if __name__ == "__main__":
    main()
