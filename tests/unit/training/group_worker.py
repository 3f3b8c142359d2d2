"""Trains runs of one and of two workers in double precision: ``python group_worker.py FOLDER SPEC``, the run as JSON.

Every worker is a process forked after the slow imports. The weights at the end of each run go to ``FOLDER/<run>.pt``, and of a
run of two workers those of the second one to ``FOLDER/<run>-second.pt``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch

from rave_dist.rave.imports import rave_module
from rave_dist.records import TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.follower import follow
from rave_dist.training.state.checkpoint import load_checkpoint
from rave_dist.training.trainer import train
from rave_dist.training.worker_group import WorkerGroup

from run_worker import plucks  # isort: skip  # its folder is that of the program


def attempt(folder: Path, name: str, spec: TrainingSpec, *, kill: int | None = None) -> list[int]:
    """Trains until the end, or until step ``kill``, at which the second worker is killed. Returns exit codes."""
    places, pids = os.pipe(), os.pipe()
    children = []
    for rank in range(spec.workers):
        child = os.fork()
        if child == 0:
            if rank:
                os.write(pids[1], str(os.getpid()).encode())
            work(folder, name, spec, rank, places, pids[0], kill)
            os._exit(0)  # after an error the child ends with its traceback
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def work(folder: Path, name: str, spec: TrainingSpec, rank: int, places: tuple[int, int], pids: int, kill: int | None) -> None:
    """A worker."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    store, audio = Store(str(folder / f"store-{name}")), [plucks(3, 1)]

    def progress(state: Any, speed: float | None) -> None:
        if state.step == kill:
            os.kill(int(os.read(pids, 20)), signal.SIGKILL)

    def lead(group: WorkerGroup | None) -> None:
        train(store, spec, audio, [plucks(1, 2)], accumulation_steps=2, on_progress=progress, group=group)

    if spec.workers == 1:
        lead(None)
    else:

        def broadcast(value: Any) -> Any:
            if rank:
                return json.loads(os.read(places[0], 100))
            os.write(places[1], json.dumps(value).encode())
            return value

        with WorkerGroup.connect(rank, spec.workers, address="127.0.0.1", broadcast=broadcast) as group:
            open_ports = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
            (folder / f"{name}-{rank}.json").write_text(json.dumps(open_ports))
            if group.leads:
                lead(group)
            else:
                run = follow(spec, lambda: audio, group=group)
                assert run is not None
                torch.save(run.model.state_dict(), folder / f"{name}-second.pt")
    if rank == 0:
        loaded = load_checkpoint(store, spec.folder.checkpoints)
        assert loaded is not None
        torch.save(loaded[1] | {"step": loaded[0]}, folder / f"{name}.pt")


def main(folder: Path, one: TrainingSpec) -> None:
    """All runs."""
    warnings.simplefilter("ignore")
    rave_module()
    two = one.model_copy(update={"workers": 2})
    assert one.run_id == two.run_id
    ended = {name: [attempt(folder, name, spec)] for name, spec in (("one", one), ("two", two))}
    ended["killed"] = [attempt(folder, "killed", two, kill=5)]
    shutil.copytree(folder / "store-killed", folder / "store-changing")
    ended["killed"].append(attempt(folder, "killed", two))
    ended["changing"] = [attempt(folder, "changing", one)]
    torch.save(ended, folder / "ended.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), TrainingSpec.model_validate_json(sys.argv[2]))
