"""What a run on Ray costs beyond its training: processes, memory, and seconds to the first step.

    python benchmarks/run_cost.py [--json] [--at-once N ...]

The same small runs, 1, 4 and 12 at once, in processes without Ray, in tasks as `rave_dist.training.on_ray` starts them, and
each as a Ray Train run with one worker, which has a controller and its helpers. Memory is PSS (shared pages count in
parts) of all processes beyond an idle Ray, when every run has done a step; the three sides alternate.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from harness import report

RATE, SECONDS = 44_100, 8
_POLL_SECONDS = 0.2
LIMIT_SECONDS = 240
_SETTLE_SECONDS = 3.0


def prepare(folder: Path, runs: int) -> tuple[Any, list[Any]]:
    """A store with one dataset and the specs of endless runs on it."""
    from rave_dist.cluster import connected
    from rave_dist.dataset.on_ray import ingest
    from rave_dist.options import Budget, CheckpointPolicy
    from rave_dist.records import TrainingSpec
    from rave_dist.storage.store import Store

    store = Store(str(folder / "store"))
    (folder / "sounds").mkdir()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, SECONDS * RATE)
    soundfile.write(folder / "sounds" / "noise.wav", noise, RATE)
    with connected():
        names = [f"run{number}" for number in range(runs)]
        ids = {n: ingest(store, n, [str(folder / "sounds")], sample_rate=RATE, channels=1, credit={}).id for n in names}
    specs = [
        TrainingSpec(
            library="bench",
            instrument=name,
            dataset=ids[name],
            config=("v2_small",),
            override={"CAPACITY": 4, "LATENT_SIZE": 8},
            sample_rate=RATE,
            channels=1,
            window=40960,
            batch=2,
            budget=Budget(steps=1_000_000),
            checkpoint=CheckpointPolicy(),
            seed=1,
        )
        for name in names
    ]
    return store, specs


def memory() -> tuple[int, int]:
    """Number and PSS in bytes of this process's descendants."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_full_info().pss)
    return len(sizes), sum(sizes)


def plain(store: Any, specs: list[Any]) -> Callable[[], None]:
    """Starts the runs in processes of their own; returns what ends them."""
    program = (
        "import sys; from rave_dist.records import TrainingSpec; from rave_dist.storage.store import Store; "
        "from rave_dist.training.worker import work; "
        "work(Store(sys.argv[1]), TrainingSpec.model_validate_json(sys.argv[2]), threads=1)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, store.uri, spec.model_dump_json()], stderr=subprocess.DEVNULL)
        for spec in specs
    ]

    def end() -> None:
        for process in started:
            process.kill()
            process.wait()

    return end


def tasks(store: Any, specs: list[Any]) -> Callable[[], None]:
    """Starts the runs as tasks of Ray."""
    import ray

    from rave_dist.scheduling.admission import Share
    from rave_dist.training.process import train_one

    refs = [train_one.options(num_cpus=1).remote(store, spec, Share("", 1), None, 1, False) for spec in specs]

    def end() -> None:
        for ref in refs:
            ray.cancel(ref, force=True)

    return end


def _work(config: dict[str, Any]) -> None:
    from rave_dist.training.worker import work

    work(config["store"], config["spec"], threads=1)


def ray_train(store: Any, specs: list[Any]) -> Callable[[], None]:
    """Starts each run under a controller of Ray Train."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    @ray.remote(num_cpus=0, max_retries=0)
    def fit(spec: Any) -> None:
        DataParallelTrainer(
            _work,
            train_loop_config={"store": store, "spec": spec},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=tempfile.mkdtemp(dir=Path(store.uri).parent)),
        ).fit()

    refs = [fit.remote(spec) for spec in specs]
    return lambda: [ray.cancel(ref, force=True) for ref in refs] and None


@contextlib.contextmanager
def ray_for(side: str, runs: int) -> Iterator[None]:
    """An embedded Ray with a CPU for each run; nothing for plain processes."""
    if side == "processes without Ray":
        yield
        return
    import ray

    ray.init("local", num_cpus=runs, include_dashboard=side == "Ray Train", log_to_driver=False, logging_level="ERROR")
    try:
        time.sleep(_SETTLE_SECONDS)
        yield
    finally:
        ray.shutdown()


SIDES = {"processes without Ray": plain, "tasks": tasks, "Ray Train": ray_train}


def one(side: str, runs: int) -> dict[str, Any]:
    """Starts runs, waits for the first step of each, and measures."""
    from rave_dist.training.heartbeat import read_records

    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        store, specs = prepare(Path(name), runs)
        names = [spec.instrument for spec in specs]
        with ray_for(side, runs):
            processes, pss = memory()
            began = time.monotonic()
            end = SIDES[side](store, specs)
            try:
                seconds = 0.0
                while seconds < LIMIT_SECONDS and not all(r.step > 0 for r in read_records(store, "bench", names)):
                    time.sleep(_POLL_SECONDS)
                    seconds = time.monotonic() - began
                time.sleep(_SETTLE_SECONDS)
                more, larger = memory()
            finally:
                end()
    return {"processes": (more - processes) / runs, "bytes": (larger - pss) / runs, "seconds": seconds}


def _said(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < LIMIT_SECONDS else f"over {LIMIT_SECONDS}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 12])
    arguments = parser.parse_args()
    rows, found = [], {}
    for runs in arguments.at_once:
        for side in SIDES:
            with contextlib.redirect_stdout(sys.stderr):  # of Ray's warnings
                result = found[side, runs] = one(side, runs)
            rows.append(
                {
                    "runs at once": runs,
                    "each in": side,
                    "processes per run": round(result["processes"], 1),
                    "MB per run": round(result["bytes"] / 1e6),
                    "seconds to the first step of all": _said(result["seconds"]),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    ratios = {}
    for runs in arguments.at_once:
        train, task = found["Ray Train", runs], found["tasks", runs]
        ratios[f"memory, {runs} at once"] = train["bytes"] / task["bytes"]
        ratios[f"seconds to the first step, {runs} at once"] = train["seconds"] / task["seconds"]
    notes = [
        "Ratios are a Ray Train run with one worker over a task.",
        f"Seconds are wall-clock time of a machine with few cores; after {LIMIT_SECONDS} s the others are not waited for.",
    ]
    report("what a run costs", rows, ratios, notes=notes, json=arguments.json)


if __name__ == "__main__":
    main()
