"""Conversion of several recordings by two workers against one, in wall time: what a night on two cores gains.

    python benchmarks/convert_workers.py [--json] [--rounds N] [--minutes M] [--files N]

The model is v2_small at full size with random weights, the recordings are generated noise (mono, 44100 Hz, 16 bits), M minutes
in N files. Both sides are the whole command on Ray, measured alternately. The start of Ray and of the workers, which ten hours
pay once, is measured with a second of audio for each worker: the ratio of ten hours is that of the time without it. The machine
must have two idle cores.
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


def converted(folder: Path, given: str, workers: int) -> Usage:
    """The whole command, from nothing."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    shutil.rmtree(folder / "store" / "conversions", ignore_errors=True)
    command = [sys.executable, "-m", "rave_dist", "convert", "--store", "store", "--model", convert.NAME]
    usage = measure([*command, "--workers", str(workers), given, "out"], env=convert.ENVIRONMENT, cwd=folder, timeout=7200)
    made, wanted = len(list((folder / "out").rglob("*.wav"))), len(list((folder / given).rglob("*.wav")))
    assert made == wanted, f"{made} of {wanted} recordings were converted"
    return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--files", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        prepare = [sys.executable, convert.__file__, "--prepare", name]
        subprocess.run(prepare, check=True, env=os.environ | convert.ENVIRONMENT, stdout=sys.stderr)
        for number in range(arguments.files):
            write_noise(folder / "in" / f"{number:03}" / "recording.wav", 60 * arguments.minutes / arguments.files)
        for number in range(2):
            write_noise(folder / "short" / f"{number}.wav", 1.0)
        sides = {
            "one worker": lambda: converted(folder, "in", 1),
            "two workers": lambda: converted(folder, "in", 2),
            "one worker, two seconds of audio": lambda: converted(folder, "short", 1),
            "two workers, two seconds of audio": lambda: converted(folder, "short", 2),
        }
        usages = {side: median(found) for side, found in interleave(sides, rounds=arguments.rounds).items()}
    one, two, start, start_of_two = usages.values()
    report(
        f"convert, two workers against one, {arguments.minutes:g} min",
        [{"": side, "CPU s": u.cpu_seconds, "wall s": u.wall_seconds} for side, u in usages.items()],
        {
            "wall, without the start of Ray and of the workers": (one.wall_seconds - start.wall_seconds)
            / (two.wall_seconds - start_of_two.wall_seconds),
            "wall, whole command": one.wall_seconds / two.wall_seconds,
        },
        json=arguments.json,
        notes=[f"{arguments.files} recordings of {60 * arguments.minutes / arguments.files:g} s"],
    )


if __name__ == "__main__":
    main()
