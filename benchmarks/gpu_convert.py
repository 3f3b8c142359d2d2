"""Conversion on one GPU, without Ray: hours of audio per hour of the card, with a v2_small model at full size.

    python benchmarks/gpu_convert.py [--json] [--minutes M] [--small]

The audio is noise (mono, 44100 Hz) in memory; decoding and encoding of files are not part of it. Each length of chunks
converts once as a warm-up. ``--small`` converts seconds, also on a CPU.
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
from harness import report

CHUNK_SECONDS = (10.0, 30.0, 120.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=float, default=30.0, help="of audio in each measurement")
    parser.add_argument("--small", action="store_true", help="seconds, to test the script")
    arguments = parser.parse_args()

    import torch

    from rave_dist.conversion.convert import Converter
    from rave_dist.registry.store import fetch, find
    from rave_dist.storage.store import Store

    on_gpu = torch.cuda.is_available()
    if not on_gpu and not arguments.small:
        raise SystemExit("there is no CUDA device; --small runs anywhere")
    device, name = ("cuda", torch.cuda.get_device_name(0)) if on_gpu else ("cpu", "CPU")
    lengths = CHUNK_SECONDS[:1] if arguments.small else CHUNK_SECONDS
    seconds = 4.0 if arguments.small else 60 * arguments.minutes
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, convert.SAMPLE_RATE * 60), dtype=np.float32)
    rows = []
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as place:
        subprocess.run([sys.executable, convert.__file__, "--prepare", place], check=True, stdout=sys.stderr)
        store = Store(str(Path(place, "store")))
        card = find(store, convert.NAME)
        converter = Converter(fetch(store, card, folder=Path(place, "cache")), card, device=device)

        def converted(duration: float, chunk_seconds: float) -> float:
            """The wall-clock seconds of a conversion."""
            left, blocks = round(duration * convert.SAMPLE_RATE), []
            while left > 0:
                blocks.append(noise[:, :left])
                left -= blocks[-1].shape[1]
            began = time.perf_counter()
            for _ in converter.convert(blocks, sample_rate=convert.SAMPLE_RATE, channels=1, chunk_seconds=chunk_seconds):
                pass
            return time.perf_counter() - began

        for chunk_seconds in lengths:
            converted(min(seconds, 2 * chunk_seconds), chunk_seconds)
            took = converted(seconds, chunk_seconds)
            rows.append({"seconds of a chunk": chunk_seconds, "seconds of audio": seconds, "seconds": took})
    best = max(float(row["seconds of audio"]) / float(row["seconds"]) for row in rows)
    notes = ["too short for a measurement"] if arguments.small else []
    report(f"conversion on one {name}", rows, {"hours of audio per hour": best}, json=arguments.json, notes=notes)


if __name__ == "__main__":
    main()
