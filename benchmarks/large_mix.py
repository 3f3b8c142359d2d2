"""Runs on a dataset larger than memory and small runs at once: whether all advance, and what each holds.

    python benchmarks/large_mix.py [--json] [--gigabytes 6] [--large 4 --small 8] [--steps 40]

As `large_data`, in as many processes as there are runs; the small ones train on a minute of audio.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from harness import report
from large_data import RATE, finish, generate, start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--memory", type=float, default=1.5, help="anonymous memory that a process may have, in GB")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--large", type=int, default=4, help="runs on the large dataset")
    parser.add_argument("--small", type=int, default=8)
    arguments = parser.parse_args()
    from rave_dist.storage.store import Store

    kinds = ["large"] * arguments.large + ["small"] * arguments.small
    settings = {"steps": arguments.steps, "limit": round(1e9 * arguments.memory), "epochs": 0}
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        os.environ["RAVE_DIST_CACHE"] = f"{name}/cache"
        store = Store(f"{name}/store")
        datasets = {
            "large": generate(store, "large", 1e9 * arguments.gigabytes / (2 * RATE)),
            "small": generate(store, "small", 60.0),
        }
        started = [start(store, datasets[kind], f"{kind}{number}", **settings) for number, kind in enumerate(kinds)]
        found = [finish(process) for process in started]
    rows = []
    for kind in ("large", "small"):
        of_kind = [answer for k, answer in zip(kinds, found, strict=True) if k == kind]
        if of_kind:
            speeds = [answer["steps_per_second"] for answer in of_kind]
            rows.append(
                {
                    **{"": f"{len(of_kind)} {kind}", "slowest, steps/s": min(speeds), "fastest, steps/s": max(speeds)},
                    "peak anonymous memory of one, GB": max(answer["peak"] for answer in of_kind) / 1e9,
                    "read from the store by all, GB": sum(answer["store_bytes"] for answer in of_kind) / 1e9,
                }
            )
    speeds = [answer["steps_per_second"] for answer in found]
    report(
        "large and small runs at once",
        rows,
        {"slowest over fastest run": min(speeds) / max(speeds)},
        json=arguments.json,
        notes=[f"{arguments.gigabytes:g} GB and a minute of audio; {arguments.steps} steps each, all started at once"],
    )


if __name__ == "__main__":
    main()
