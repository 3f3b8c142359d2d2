"""Conversion of archives of 1,000, 10,000 and 100,000 tiny recordings: memory by size, and CPU-seconds for each file.

    python benchmarks/archive_size.py [--json] [--files N ...] [--converted N]

The recordings are WAV files of 1 kB, in folders of 100. Measured in processes of their own, against one that only imports:

- first run: the recordings are listed and planned, and each gets its entry in the journal; then record and table are written.
  Nothing is played: an archive of this size takes days.
- rerun: the same command when all is finished.
- converted: fewer files, really converted; the model (v2_small at full size, random weights) and its loading are subtracted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import convert as convert_benchmark
from harness import report


def write_recordings(folder: Path, count: int) -> None:
    """WAV files of 1 kB, 16 bits, mono, 44100 Hz."""
    import numpy as np
    import soundfile

    samples = np.random.default_rng(0).standard_normal(490) * 0.1
    soundfile.write(folder / "one.wav", samples, 44100)
    data = (folder / "one.wav").read_bytes()
    (folder / "one.wav").unlink()
    for number in range(count):
        place = folder / f"site {number // 10_000}" / f"2026-05-{number // 100 % 100:02}"
        if number % 100 == 0:
            place.mkdir(parents=True)
        (place / f"recorder 7, take {number:06}.wav").write_bytes(data)


def work(folder: Path, mode: str) -> dict[str, float]:
    """In a separate process: CPU-seconds and peak memory."""
    import torch

    from rave_dist.archives.outcome import write_outcome
    from rave_dist.conversion import in_process
    from rave_dist.conversion.convert import Converter
    from rave_dist.conversion.corpus import output_tag, plan_conversion
    from rave_dist.conversion.item import Outcome, failed_item
    from rave_dist.conversion.job import Job, begin, finish
    from rave_dist.conversion.table import write_table  # noqa: F401 (counted before)
    from rave_dist.records import ConversionParameters
    from rave_dist.registry.store import find
    from rave_dist.storage.store import Store

    def entries(job: Job) -> Iterator[Outcome]:
        """In the place of playing: an output of no bytes and an entry."""
        (plan,) = job.plans
        for each in job.to_do:
            path = Path(plan.output.address(each.task.output))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            made: dict[str, Any] = {"state": "converted", "output_sha256": "0" * 64, "seconds": 0.01}
            made["output_tag"] = output_tag(plan, each.task.output)
            item = failed_item(plan, each.task, None).model_copy(update=made)
            item.save(store, plan.journal_key(each.task))
            yield Outcome(item, plan.id)

    store = Store(str(folder / "store"))
    card = find(store, convert_benchmark.NAME)
    elsewhere = 0.0  # CPU-seconds of the model and of its loading
    if mode == "converted":
        torch.set_num_threads(1)

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal elsewhere
                started = time.thread_time()
                result = function(*arguments, **options)
                elsewhere += time.thread_time() - started
                return result

            return call

        Converter.play = timed(Converter.play)  # type: ignore[method-assign]
        Converter.__init__ = timed(Converter.__init__)  # type: ignore[method-assign]
    began = time.process_time()
    if mode != "import":
        output = folder / ("out" if mode != "converted" else "converted")
        plan = plan_conversion(card, [str(folder / "in")], str(output), ConversionParameters())
        job = begin(store, [plan], chunk_seconds=20.0)
        records = finish(job, in_process.convert_all(job) if mode == "converted" else entries(job))
        write_outcome(store, [plan], records)
        assert records[0].skipped == (len(plan.tasks) if mode == "rerun" else 0), records[0]
    cpu = time.process_time() - began - elsewhere
    return {"cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def measured(folder: Path, mode: str) -> dict[str, float]:
    ran = subprocess.run(
        [sys.executable, __file__, "--work", mode, "--folder", str(folder)],
        check=True,
        env=os.environ | convert_benchmark.ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--converted", type=int, default=300)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(Path(arguments.folder), arguments.work)))
        return
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        prepare = [sys.executable, convert_benchmark.__file__, "--prepare", name]
        subprocess.run(prepare, check=True, env=os.environ | convert_benchmark.ENVIRONMENT, stdout=sys.stderr)
        bare = measured(Path(name), "import")["peak"]
        wanted = [(count, mode) for count in arguments.files for mode in ("first run", "rerun")]
        for count, mode in [*wanted, (arguments.converted, "converted")]:
            folder = Path(name) / f"{count}"
            if not folder.exists():
                (folder / "in").mkdir(parents=True)
                (folder / "store").mkdir()
                os.symlink(Path(name) / "store" / "models", folder / "store" / "models")
                write_recordings(folder / "in", count)
            found = measured(folder, mode)
            more = found["peak"] - bare
            rows.append(
                {
                    "files": count,
                    "": mode,
                    "CPU ms per file": 1000 * found["cpu"] / count,
                    "peak MB over imports": more / 1e6,
                    "bytes per file": round(more / count),
                }
            )
    report(
        "archive size",
        rows,
        {},
        json=arguments.json,
        notes=[
            f"a process that only imports has a peak of {bare / 1e6:.0f} MB",
            "converted: without the CPU time of the model and of its loading",
        ],
    )


if __name__ == "__main__":
    main()
