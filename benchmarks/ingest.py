"""Ingest of 200 short recordings: `rave preprocess` against rave-dist's ingest, in CPU-seconds of the whole process tree.

    python benchmarks/ingest.py [--json] [--rounds N]

The recordings are generated (decaying tones and noise, 1 to 4 s, 16-bit mono WAV at 44100 Hz). Measured alternately:

- stock: ``rave preprocess`` with its defaults, the whole command. It needs ffmpeg and ffprobe on the PATH.
- rave-dist, on a running Ray: the first ingest after Ray's start, with the start of its workers; then the ingest of another
instrument, as in a library of several. CPU of the driver, of Ray's workers and its daemons.
- rave-dist, whole command: ``rave-dist ingest``, with the start and end of its embedded Ray.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from harness import Usage, interleave, measure, median, report

SAMPLE_RATE = 44100
FILES = 200
SETTLE_SECONDS = 5  # Ray's daemons are busy for a while after their start, which belongs to the whole command
STOCK = "import runpy, sys;from rave_dist.rave.imports import install_repairs; install_repairs(); {run}"
STOCK_RUN = "sys.argv[0] = 'preprocess'; runpy.run_path({script!r}, run_name='__main__')"


def write_recordings(folder: Path) -> float:
    """Writes the recordings; returns their total seconds."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    seconds = 0.0
    for index in range(FILES):
        time_axis = np.arange(round(random.uniform(1, 4) * SAMPLE_RATE)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * random.uniform(80, 400) * time_axis) * np.exp(-2 * time_axis)
        noise = random.standard_normal(len(time_axis)) * np.exp(-3 * time_axis)
        soundfile.write(folder / f"hit {index:03d}.wav", 0.5 * tone + 0.1 * noise, SAMPLE_RATE)
        seconds += len(time_axis) / SAMPLE_RATE
    return seconds


def stock(recordings: Path, folder: Path) -> tuple[Usage, float]:
    """Stock's preprocessing: its usage, and the seconds that it kept."""
    import lmdb

    place = Path(
        subprocess.check_output([sys.executable, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    )
    code = STOCK.format(run=STOCK_RUN.format(script=str(place / "scripts" / "preprocess.py")))
    shutil.rmtree(folder, ignore_errors=True)
    usage = measure(
        [sys.executable, "-c", code, "--input_path", str(recordings), "--output_path", str(folder / "db")], timeout=900
    )
    with lmdb.open(str(folder / "db"), readonly=True) as database:
        chunks = database.stat()["entries"]
    return usage, chunks * 2 * 131072 / SAMPLE_RATE


def on_running_ray(recordings: Path, folder: Path) -> dict[str, Usage]:
    """Ours on a separate Ray, in a separate process."""
    shutil.rmtree(folder, ignore_errors=True)
    out = subprocess.check_output([sys.executable, __file__, "--on-ray", str(recordings), str(folder)], text=True)
    return {name: Usage(**values) for name, values in json.loads(out.splitlines()[-1]).items()}


def ingest_twice(recordings: Path, folder: Path) -> None:
    """The part of `on_running_ray` in that process: prints the two usages."""
    from rave_dist.cluster import connected
    from rave_dist.dataset.on_ray import ingest
    from rave_dist.storage.store import Store

    usages: dict[str, dict[str, float]] = {}
    with connected():
        time.sleep(SETTLE_SECONDS)
        for name in ("first", "next"):
            patterns = [str(recordings)]
            store = Store(str(folder / name))
            usage = measure(
                lambda store=store, patterns=patterns: ingest(
                    store, "hits", patterns, sample_rate=SAMPLE_RATE, channels=1, credit={}, library="bench"
                )
            )
            usages[name] = asdict(usage)
    print(json.dumps(usages))


def whole_command(recordings: Path, folder: Path, seconds: float) -> Usage:
    """Our whole command; its output must account for every second."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    library = folder / "library.yaml"
    library.write_text(
        f"name: bench\nstore: ./store\ndefaults: {{sample_rate: {SAMPLE_RATE}}}\n"
        f"instruments: {{hits: {{sources: [{json.dumps(str(recordings))}]}}}}\n"
    )
    usage = measure([sys.executable, "-m", "rave_dist", "ingest", str(library), "--json"], timeout=900)
    pointer = json.loads((folder / "store/datasets/hits/latest/bench.json").read_text())
    manifest = json.loads((folder / f"store/datasets/hits/{pointer['id']}/manifest.json").read_text())
    kept = manifest["used_seconds"] + sum(rejection["seconds"] for rejection in manifest["rejected"])
    if abs(kept - seconds) > 0.001 or manifest["rejected"]:
        raise SystemExit(f"{seconds - kept:.3f} s were lost of {seconds:.3f}, or rejected: {manifest['rejected']}")
    return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--on-ray", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_ray:
        ingest_twice(*arguments.on_ray)
        return
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        raise SystemExit("rave preprocess needs ffmpeg and ffprobe: apt-get install ffmpeg")
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as temporary:
        work = Path(temporary)
        seconds = write_recordings(work / "recordings")
        kept: list[float] = []
        following: list[Usage] = []

        def run_stock() -> Usage:
            usage, stock_seconds = stock(work / "recordings", work / "stock")
            kept.append(stock_seconds)
            return usage

        def run_on_ray() -> Usage:
            usages = on_running_ray(work / "recordings", work / "ours")
            following.append(usages["next"])
            return usages["first"]

        results = interleave(
            {
                "rave preprocess": run_stock,
                "rave-dist, first ingest of a running Ray": run_on_ray,
                "rave-dist, whole command": lambda: whole_command(work / "recordings", work / "whole", seconds),
            },
            rounds=arguments.rounds,
        )
        results["rave-dist, next ingest of that Ray"] = following
    medians = {name: median(usages) for name, usages in results.items()}
    cpu = {name: usage.cpu_seconds for name, usage in medians.items()}
    base = cpu["rave preprocess"]
    rows = [
        {
            "": name,
            "CPU-s": usage.cpu_seconds,
            "wall s": usage.wall_seconds,
            "peak MiB": usage.peak_rss_bytes >> 20,
            "seconds kept": round(kept[0] if name == "rave preprocess" else seconds, 3),
        }
        for name, usage in medians.items()
    ]
    ratios = {
        "cpu": base / cpu["rave-dist, next ingest of that Ray"],
        "cpu_first_ingest": base / cpu["rave-dist, first ingest of a running Ray"],
        "cpu_whole_command": base / cpu["rave-dist, whole command"],
    }
    notes = [
        f"{FILES} files, {seconds:.3f} s; medians of {arguments.rounds} interleaved rounds; CPU of the whole process tree",
        "stock's whole command is counted; of ours `cpu` counts the driver, Ray's workers and its daemons, on a Ray"
        " that has ingested before; `cpu_first_ingest` also the start of its workers and of Ray Data's own actors, which a"
        " cluster pays once; `cpu_whole_command` also the start and end of an embedded Ray, once per command",
        "repairs that stock needed: torchaudio's CUDA library skipped (`install_repairs`); ffmpeg from the distribution",
        "stock drops every file, and every tail, shorter than 5.94 s; ours accounts for every millisecond (checked each round)",
    ]
    report("ingest", rows, ratios, json=arguments.json, notes=notes)


if __name__ == "__main__":
    main()
