"""Cost of writing one output file, in an empty folder and in one that already holds many outputs.

    python benchmarks/outputs.py [--json] [--outputs N] [--files N] [--rounds N]

Both folders get the same short FLAC files through `AudioWriter`, as a conversion writes them, in rounds that alternate. The
cost of a file must not depend on the number of files that are there: the ratio is 1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import report

from rave_dist.audio.io.write import AudioWriter

SAMPLE_RATE = 44_100


def write_outputs(folder: Path, names: range) -> float:
    """CPU-seconds of writing a tenth of a second of noise under each name."""
    sound = (np.random.default_rng(0).standard_normal((1, SAMPLE_RATE // 10)) * 0.1).astype(np.float32)
    before = time.process_time()
    for name in names:
        with AudioWriter(folder / f"{name:07d}.flac", sample_rate=SAMPLE_RATE, channels=1, subtype="PCM_16") as writer:
            writer.write(sound)
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--outputs", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folders = {0: Path(name, "empty"), arguments.outputs: Path(name, "full")}
        for count, folder in folders.items():
            folder.mkdir()
            for number in range(count):
                (folder / f"output {number:07d}.flac").touch()
            write_outputs(folder, range(arguments.files))  # warms both up
        seconds = dict.fromkeys(folders, 0.0)
        for round_number in range(1, arguments.rounds + 1):
            names = range(round_number * arguments.files, (round_number + 1) * arguments.files)
            for count, folder in folders.items():
                seconds[count] += write_outputs(folder, names)
    files = arguments.files * arguments.rounds
    rows = [{"outputs there": count, "CPU ms per file": 1000 * spent / files} for count, spent in seconds.items()]
    ratio = seconds[arguments.outputs] / seconds[0]
    report("one more output", rows, {"CPU per file, many outputs over none": ratio}, notes=[], json=arguments.json)


if __name__ == "__main__":
    main()
