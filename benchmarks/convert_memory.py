"""Memory of `rave-dist convert` by length of the recording: 3 minutes and 1 hour.

    python benchmarks/convert_memory.py [--json] [--seconds S ...]

The model is v2_small at full size (random weights, which cost as much as trained ones), the recording generated noise
(mono, 44100 Hz, 16 bits), written in blocks. Measured is the largest process of the tree, the worker with the model: its
memory must not grow with the length of the recording.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import convert
import numpy as np
import soundfile
from harness import measure, report


def write_noise(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", convert.SAMPLE_RATE, 1, "PCM_16") as file:
        left = round(seconds * convert.SAMPLE_RATE)
        while left:
            block = rng.standard_normal(min(left, 10 * convert.SAMPLE_RATE)) * 0.1
            file.write(block)
            left -= len(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, nargs=2, default=[180.0, 3600.0], metavar=("SHORT", "LONG"))
    arguments = parser.parse_args()
    usages = {}
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        prepare = [sys.executable, convert.__file__, "--prepare", name]
        subprocess.run(prepare, check=True, env=os.environ | convert.ENVIRONMENT, stdout=sys.stderr)
        command = [sys.executable, "-m", "rave_dist", "convert", "--store", "store", "--model", convert.NAME]
        for seconds in arguments.seconds:
            given, output = f"in-{seconds:g}", f"out-{seconds:g}"
            write_noise(folder / given / "recording.wav", seconds)
            usages[seconds] = measure([*command, given, output], env=convert.ENVIRONMENT, cwd=folder, timeout=3600)
            frames = soundfile.info(folder / output / "recording.wav").frames
            assert frames == round(seconds * convert.SAMPLE_RATE), f"{frames} samples"
    rows = [
        {
            "recording": f"{seconds:g} s",
            "CPU s": u.cpu_seconds,
            "wall s": u.wall_seconds,
            "worker peak MB": u.largest_rss_bytes / 1e6,
        }
        for seconds, u in usages.items()
    ]
    short, long = usages.values()
    report(
        "convert, memory by length",
        rows,
        {"worker's memory, short over long recording": short.largest_rss_bytes / long.largest_rss_bytes},
        notes=["the largest process of the tree, which has the model, without Ray's own processes"],
        json=arguments.json,
    )


if __name__ == "__main__":
    main()
