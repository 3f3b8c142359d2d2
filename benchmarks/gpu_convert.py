"""Conversion on one GPU, without Ray: hours of audio per hour of the card, with a v2_small model at full size.

    python benchmarks/gpu_convert.py [--json] [--minutes M] [--price P] [--small]

A long recording is noise (mono, 44100 Hz) in memory, whose chunks are the rows of a batch: decoding and encoding of files are
not part of it. Measured for several lengths of chunks and numbers of rows, each after a warm-up. Short recordings are files of
a second, converted as by a worker: with rows of a batch from several files, and one row at a time. The share of the limit is
that of a product of large matrices in float32 on the same card (see convert_limit.py); ``--price`` is that of an hour of the
card. ``--small`` converts seconds, also on a CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import convert
import numpy as np
from convert_limit import gflop_per_second_of_audio, product_gflops
from convert_memory import write_noise
from harness import report

SHAPES = [(seconds, rows) for seconds in (10.0, 30.0, 120.0) for rows in (1, 8, 32)]
"""Seconds of a chunk, and rows of a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=float, default=30.0, help="of audio in each measurement; at least eight full batches")
    parser.add_argument("--price", type=float, help="of an hour of the card")
    parser.add_argument("--small", action="store_true", help="seconds, to test the script")
    arguments = parser.parse_args()

    import torch

    from rave_dist.conversion.batches import Batches
    from rave_dist.conversion.convert import Converter
    from rave_dist.conversion.corpus import plan_conversion
    from rave_dist.conversion.job import begin, finish
    from rave_dist.conversion.several_files import attempt_all
    from rave_dist.options import DEFAULT_CHUNK_SECONDS
    from rave_dist.records import ConversionParameters
    from rave_dist.registry.store import find
    from rave_dist.storage.store import Store

    on_gpu = torch.cuda.is_available()
    if not on_gpu and not arguments.small:
        raise SystemExit("there is no CUDA device; --small runs anywhere")
    device, name = ("cuda", torch.cuda.get_device_name(0)) if on_gpu else ("cpu", "CPU")
    seconds = 8.0 if arguments.small else 60 * arguments.minutes
    shapes = [(1.0, rows) for rows in (1, 2)] if arguments.small else SHAPES
    rows = []
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as place:
        subprocess.run([sys.executable, convert.__file__, "--prepare", place], check=True, stdout=sys.stderr)
        work = gflop_per_second_of_audio(Path(place, "run"))
        store = Store(str(Path(place, "store")))
        card = find(store, convert.NAME)
        limit = product_gflops(device, size=512 if arguments.small else 8192)

        def converted(converter: Converter, duration: float, chunk_seconds: float) -> float:
            """The wall-clock seconds of the conversion of a long recording."""
            noise = 0.1 * np.random.default_rng(0).standard_normal((1, convert.SAMPLE_RATE), dtype=np.float32)
            began = time.perf_counter()
            options = {"sample_rate": convert.SAMPLE_RATE, "channels": 1, "chunk_seconds": chunk_seconds}
            for _ in converter.convert((noise for _ in range(max(1, round(duration)))), **options):
                pass
            return time.perf_counter() - began

        def files_converted(size: int) -> float:
            """The files per second of wall clock."""
            plan = plan_conversion(card, [f"{place}/short"], f"{place}/{size}", ConversionParameters())
            job = begin(store, [plan], chunk_seconds=DEFAULT_CHUNK_SECONDS)
            converters = {0: Converter.load(store, card, device=device, batches=Batches(size))}
            converted(converters[0], 1.0, 1.0)
            began = time.perf_counter()
            (record,) = finish(job, attempt_all(job, job.to_do, converters))
            assert record.converted == files
            return files / (time.perf_counter() - began)

        for chunk_seconds, batch in shapes:
            converter = Converter.load(store, card, device=device, batches=Batches(batch))
            converted(converter, 2 * chunk_seconds * batch, chunk_seconds)
            lasts = seconds if arguments.small else max(seconds, 8 * chunk_seconds * batch)
            took = converted(converter, lasts, chunk_seconds)
            rate = lasts / took
            rows.append(
                {
                    "seconds of a chunk": chunk_seconds,
                    "rows": batch,
                    "hours of audio per hour": rate,
                    "share of the limit": work * rate / limit,
                    **({"cost of 1,000 hours": 1000 / rate * arguments.price} if arguments.price else {}),
                }
            )
        files = 16 if arguments.small else 1000
        for number in range(files):
            write_noise(Path(place, "short", f"{number:04}.wav"), 1.0)
        short = {size: files_converted(size) for size in (1, shapes[-1][1] if arguments.small else 8)}
    best = max(rows, key=lambda row: row["hours of audio per hour"])
    notes = ["too short for a measurement"] if arguments.small else []
    report(
        f"conversion on one {name}",
        rows,
        {
            **{name: best[name] for name in ("hours of audio per hour", "share of the limit")},
            **{f"short files per second, {size} at once": speed for size, speed in short.items()},
        },
        json=arguments.json,
        notes=[
            *notes,
            f"the product of matrices: {limit:,.0f} GFLOP per second; v2_small: {work:.2f} GFLOP per second of audio",
        ],
    )


if __name__ == "__main__":
    main()
