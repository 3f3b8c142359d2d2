"""Conversion on one GPU, without Ray: hours of audio per hour of the card, with a v2_small model at full size.

    python benchmarks/gpu_convert.py [--json] [--minutes M] [--price P] [--small]

The audio is noise (44100 Hz) in memory; decoding and encoding of files are not part of it. Measured for several lengths of
chunks and numbers of channels, which a mono model converts as rows of one batch; hours are those of all channels together. Each
is converted once as a warm-up. The share of the limit is that of a product of large matrices in float32 on the same card (see
convert_limit.py); ``--price`` is that of an hour of the card. ``--small`` converts seconds, also on a CPU.
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
from harness import report

SHAPES = [(seconds, rows) for seconds in (10.0, 30.0, 120.0) for rows in (1, 8, 32)]
"""Seconds of a chunk, and rows of a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=float, default=30.0, help="of audio in each measurement, all channels together")
    parser.add_argument("--price", type=float, help="of an hour of the card")
    parser.add_argument("--small", action="store_true", help="seconds, to test the script")
    arguments = parser.parse_args()

    import torch

    from rave_dist.conversion import convert as conversion
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
        converter = conversion.Converter.load(store, find(store, convert.NAME), device=device)
        limit = product_gflops(device, size=512 if arguments.small else 8192)

        def converted(duration: float, chunk_seconds: float, channels: int) -> float:
            """The wall-clock seconds of a conversion."""
            noise = 0.1 * np.random.default_rng(0).standard_normal((channels, convert.SAMPLE_RATE), dtype=np.float32)
            blocks = (noise for _ in range(max(1, round(duration / channels))))
            began = time.perf_counter()
            options = {"sample_rate": convert.SAMPLE_RATE, "channels": channels, "chunk_seconds": chunk_seconds}
            for _ in converter.convert(blocks, **options):
                pass
            return time.perf_counter() - began

        for chunk_seconds, batch in shapes:
            conversion._ROWS_AT_ONCE[device] = batch
            converted(2 * chunk_seconds * batch, chunk_seconds, batch)
            took = converted(seconds, chunk_seconds, batch)
            rate = seconds / took
            rows.append(
                {
                    "seconds of a chunk": chunk_seconds,
                    "rows": batch,
                    "hours of audio per hour": rate,
                    "share of the limit": work * rate / limit,
                    **({"cost of 1,000 hours": 1000 / rate * arguments.price} if arguments.price else {}),
                }
            )
    best = max(rows, key=lambda row: row["hours of audio per hour"])
    notes = ["too short for a measurement"] if arguments.small else []
    report(
        f"conversion on one {name}",
        rows,
        {name: best[name] for name in ("hours of audio per hour", "share of the limit")},
        json=arguments.json,
        notes=[
            *notes,
            f"the product of matrices: {limit:,.0f} GFLOP per second; v2_small: {work:.2f} GFLOP per second of audio",
        ],
    )


if __name__ == "__main__":
    main()
