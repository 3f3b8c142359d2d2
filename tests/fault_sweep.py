"""Every operation of a stage, every fault that can strike it: afterwards the same command ends with the same store.

``python tests/fault_sweep.py FOLDER [STAGE...]`` tries all of them, which takes hours of CPU time for training and publishing;
``--every N`` tries every Nth. `tests/unit/storage/test_faults.py` tries a part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# Times, and what follows from them or from which attempt did the work.
VOLATILE = {
    *("created_at", "updated_at", "at", "steps_per_second", "output_tag", "activity"),
    # of the last training processes; a lost record is rebuilt from the result without them
    *("worker", "attempt", "threads", "device", "gpu_share", "gpu_bytes", "retries", "curve"),
    *("converted", "skipped", "step_times"),
    *("device_bytes", "host_bytes", "cpus"),  # measured by dry runs
}
# Exports of the same weights differ in their bytes; `rave_dist.maintenance` compares files and card.
OF_EXPORTS = {"files"}
_NUMBER_OF_LEASE = re.compile(r"(?<=^leases/libraries/band/)\d+\.json$")  # every attempt takes the next one
ELAPSED = ("result.json", "record.json")  # their `seconds` are those of the clock


@dataclass(frozen=True)
class Fault:
    """The n-th operation of a line, and what happens to it."""

    store: str
    line: str
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.line} #{self.number} of {self.store}"


@dataclass
class Stage:
    """A stage, its arguments, and the folder of stores that it begins with."""

    name: str
    begins_with: Path
    arguments: dict[str, str] = field(default_factory=dict)


class Sweeper:
    """Runs stages with faults, in children of one warm process.

    Args:
        folder: for everything that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = folder / "errors"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "RAVE_DIST_EXTENSIONS": "faulty_store",
            "FAULTY_STORES": str(folder),
            **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        }
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(ROOT / "tests" / "fault_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def close(self) -> None:
        with self.process:  # closes its pipes, which ends it, and waits
            pass

    def run(self, stage: Stage, root: Path) -> int:
        """Runs a stage on the stores in ``root``; returns its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        job = {"stage": stage.name, "root": str(root), "scratch": str(scratch), **stage.arguments}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def undisturbed(self, stage: Stage, root: Path) -> list[Fault]:
        """Runs a stage without faults, and returns all faults that can strike it."""
        from faulty_store import FAULTS

        shutil.copytree(stage.begins_with, root)
        for log in root.glob("*.log"):
            log.unlink()
        code = self.run(stage, root)
        assert code == 0, f"{stage.name} ended with {code}: {self.errors.read_text()[-3000:]}"
        found: list[Fault] = []
        for log in sorted(root.glob("*.log")):
            seen: Counter[str] = Counter()
            for line in log.read_text().splitlines():
                if "/.write-check-" in f"/{line.partition(' ')[2]}":
                    continue  # keys at random, and nothing stays of them
                seen[line] += 1
                kinds = FAULTS[line.partition(" ")[0]]
                found += [Fault(log.stem, line, seen[line], kind) for kind in kinds]
            log.unlink()
        return found

    def problem(self, stage: Stage, fault: Fault, expected: dict[str, str]) -> str | None:
        """Strikes a stage with a fault, runs it again without, and compares; None if all is as without the fault."""
        root = self.folder / "struck"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(stage.begins_with, root)
        order = root / f"{fault.store}.fault"
        order.write_text(json.dumps({"line": fault.line, "number": fault.number, "kind": fault.kind}))
        before = self.errors.stat().st_size
        first = self.run(stage, root)
        order.unlink()
        for log in root.glob("*.log"):
            log.unlink()
        again = self.run(stage, root)
        said = self.errors.read_text()[before:].strip()
        killed = fault.kind.startswith("killed") or fault.kind == "torn"
        wrong = [
            *([f"the first run ended with {first}"] if first == 70 or (killed and first not in (-9, 0)) else []),
            *([f"the second run ended with {again}"] if again != 0 else []),
            *differences(expected, tree(root, exports=stage.name != "publish")),
            *damages(root / "store"),
        ]
        return f"{stage.name}, {fault}: {'; '.join(wrong)}\n{said[-1500:]}" if wrong else None


def damages(place: Path) -> list[str]:
    """What is wrong inside of a store, all bytes read."""
    from rave_dist.maintenance.verify import Part, verify
    from rave_dist.storage.store import Store

    found = verify(Store(str(place)), part=Part(1, 1)).problems
    return [f"{key}: {problem.what}" for key, problem in found.items()]


def tree(root: Path, *, exports: bool = True) -> dict[str, str]:
    """A hash of every object in a folder of stores, without times, or the bytes of exports; temporary files are none."""
    from rave_dist.storage.store import Store

    objects: dict[str, str] = {}
    for place in sorted(path for path in root.iterdir() if path.is_dir()):
        for entry in Store(str(place)).list():
            if "/events/" in entry.key:
                continue  # TensorBoard's files are named after time and process
            key = _NUMBER_OF_LEASE.sub("", entry.key)
            objects[f"{place.name}/{key}"] = _hash(place / entry.key, exports=exports)
    return objects


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return [
        *(f"{key} is missing" for key in sorted(expected.keys() - found.keys())),
        *(f"{key} is too many" for key in sorted(found.keys() - expected.keys())),
        *(f"{key} differs" for key in sorted(expected.keys() & found.keys()) if expected[key] != found[key]),
    ]


def _hash(path: Path, *, exports: bool) -> str:
    if path.suffix == ".ts" and not exports:
        return "an export"
    if path.suffix == ".json":
        try:
            value = _without_times(json.loads(path.read_bytes()), elapsed=path.name in ELAPSED)
        except ValueError:
            return "not JSON"
        if "released" in value:
            return f"a lease, released: {value['released']}"
        if path.name == "card.json" and not exports:
            value = {name: each for name, each in value.items() if name not in OF_EXPORTS}
        if path.parent.name == "checkpoints":
            return str(value["step"])  # the rest is a hash of elapsed seconds too
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    if path.suffix == ".pt" and path.parent.name == "checkpoints":
        import torch

        digest = hashlib.sha256()
        _digest(torch.load(path, weights_only=True), digest)
        return digest.hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any, *, elapsed: bool) -> Any:
    if isinstance(value, dict):
        dropped = VOLATILE | ({"seconds"} if elapsed else set())
        return {name: _without_times(each, elapsed=elapsed) for name, each in value.items() if name not in dropped}
    return [_without_times(each, elapsed=elapsed) for each in value] if isinstance(value, list) else value


def _digest(value: Any, digest: Any, name: str = "") -> None:
    """Hashes a checkpoint's tensors and values, except measured seconds."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            if key not in ("seconds", "step_times"):
                _digest(value[key], digest, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _digest(each, digest, f"{name}/{index}")
    else:
        data = value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
        digest.update(name.encode() + data)


@contextmanager
def sweeper(folder: Path) -> Iterator[Sweeper]:
    made = Sweeper(folder)
    try:
        yield made
    finally:
        made.close()


def write_recordings(folder: Path) -> Path:
    """Two short recordings, one with silence in it."""
    import numpy as np
    import soundfile

    place = folder / "recordings"
    place.mkdir()
    time = np.arange(5 * 44100) / 44100
    sound = 0.5 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * 330 * time)
    soundfile.write(place / "plucks.wav", sound, 44100, subtype="PCM_16")
    soundfile.write(place / "more.wav", np.where(time < 2, sound[::-1], 0)[: 3 * 44100], 44100, subtype="PCM_16")
    return place


def sweep(made: Sweeper, stage: Stage, faults: list[Fault], expected: dict[str, str]) -> list[str]:
    """The problems of the faults."""
    return [problem for fault in faults if (problem := made.problem(stage, fault, expected)) is not None]


def main(folder: Path, names: list[str], every: int) -> int:
    folder.mkdir(parents=True)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ["FAULTY_STORES"] = str(folder)
    recordings = str(write_recordings(folder))
    (folder / "empty").mkdir()
    stages = [
        Stage("lease", folder / "empty"),
        Stage("ingest", folder / "empty", {"recordings": recordings}),
        Stage("train", folder / "after-ingest"),
        Stage("publish", folder / "after-train"),
        Stage("convert", folder / "after-publish", {"recordings": recordings, "model": "plucks"}),
    ]
    failed = 0
    with sweeper(folder) as made:
        for stage in stages:
            after = folder / f"after-{stage.name}"
            faults = made.undisturbed(stage, after)
            expected = tree(after, exports=stage.name != "publish")
            if names and stage.name not in names:
                continue
            print(f"{stage.name}: {len(faults)} faults, of which {len(faults[::every])} are tried", flush=True)
            for number, fault in enumerate(faults[::every]):
                problem = made.problem(stage, fault, expected)
                failed += problem is not None
                if problem is not None:
                    print(f"{number} {problem}", flush=True)
    print(f"{failed} problems")
    return 3 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="*")
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    sys.exit(main(given.folder, given.stages, given.every))
