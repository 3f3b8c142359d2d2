"""Nights of 1,000 instruments, simulated with the scheduler: when the last one ends, over the time that no schedule can beat.

    python benchmarks/night.py [--json] [--seeds N] [--picture FILE.svg]

Instruments of mixed size and length train on 8 hosts with 8 GPUs of 80 GiB each. With failures, two hosts join late, two are
lost, and 50 processes die. On 24 GPUs the shared work decides instead of the longest run. It needs no Ray: the same code
admits runs on a cluster. Measured is no time of this machine, but that of the simulation.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from harness import report

from rave_dist.scheduling.admission import Candidate, Host, Need
from rave_dist.scheduling.simulation import START_SECONDS, Faults, Span, lower_bound, simulate
from rave_dist.scheduling.timeline import draw_timeline

HOUR = 3600.0
INSTRUMENTS = 1000


def cluster(hosts: int) -> list[Host]:
    return [Host(f"host {n + 1}", cpus=64, gpus=8, gpu_bytes=80 << 30) for n in range(hosts)]


def library(seed: int) -> list[Candidate]:
    """Steps of 2 to 40 GiB; mostly one to five hours, twelve at most."""
    draw = random.Random(seed)
    sizes = draw.choices((2, 3, 8, 12, 40), (10, 40, 20, 20, 10), k=INSTRUMENTS)
    hours = [min(12.0, draw.lognormvariate(0.6, 0.9)) for _ in sizes]
    return [
        Candidate(f"instrument {n}", Need(gpu_bytes=gib << 30), HOUR * long)
        for n, (gib, long) in enumerate(zip(sizes, hours, strict=True))
    ]


def faults_of(runs: list[Candidate], seed: int) -> Faults:
    draw = random.Random(seed)
    return Faults(
        joins={"host 2": 2 * HOUR, "host 3": 4 * HOUR},
        losses={"host 4": 5 * HOUR, "host 5": 9 * HOUR},
        deaths={run.name: [draw.uniform(60, run.seconds)] for run in draw.sample(runs, 50)},
    )


def end(spans: list[Span]) -> float:
    return max(span.end for span in spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="draw the first night with failures")
    arguments = parser.parse_args()
    rows = []
    for name, hosts, fails in (("64 GPUs", 8, False), ("64 GPUs, failures", 8, True), ("24 GPUs", 3, False)):
        ends, ratios = [], []
        for seed in range(arguments.seeds):
            runs, machines = library(seed), cluster(hosts)
            faults = faults_of(runs, seed) if fails else Faults()
            spans = simulate(runs, machines, faults=faults, start_seconds=START_SECONDS)
            ends.append(end(spans) / HOUR)
            ratios.append(end(spans) / lower_bound(runs, machines, faults=faults))
            if fails and not seed and arguments.picture:
                arguments.picture.write_text(draw_timeline(spans, machines), encoding="utf-8")
        rows.append(
            {
                **{"night": name, "ends after h": sum(ends) / len(ends), "over the bound": sum(ratios) / len(ratios)},
                "worst over the bound": max(ratios),
            }
        )
    ratios_shown = {f"end over the lower bound, {row['night']}": row["worst over the bound"] for row in rows}
    notes = [f"{arguments.seeds} libraries drawn by seed; an attempt takes {START_SECONDS:.0f} s before its first step."]
    report("simulated nights of 1,000 instruments", rows, ratios_shown, notes=notes, json=arguments.json)


if __name__ == "__main__":
    main()
