"""Trains runs as plain processes that can be killed: ``python run_worker.py``; one JSON job ``{store, spec, folder}`` a line.

Each job has a process of its own, forked after the slow imports, which works in ``folder`` and writes ``pid <n>``,
``step <n>`` for every step done, and ``finished <n>`` or ``stopped <n>``; then this program writes ``ended <exit code>``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rave_dist.rave.imports import rave_module
from rave_dist.records import TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import sigterm_as_flag, termination_requested
from rave_dist.training.trainer import train


@dataclass(frozen=True)
class Recording:
    pcm: npt.NDArray[np.int16]


def plucks(seconds: float, seed: int) -> Recording:
    random, rate = np.random.default_rng(seed), 44100
    since = np.arange(int(seconds * rate)) / rate % 0.25
    pitch = np.repeat(random.uniform(150, 900, size=int(seconds * 4)), rate // 4)
    sound = 0.5 * np.exp(-12 * since) * np.sin(2 * np.pi * pitch * since)
    return Recording((sound * 32767).astype(np.int16)[None])


def say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())  # one call, so that the lines of two processes never mix


def work(job: dict[str, Any]) -> None:
    os.chdir(job["folder"])
    tempfile.tempdir = job["folder"]
    torch.set_num_threads(1)
    say("pid", os.getpid())
    with sigterm_as_flag():
        outcome = train(
            Store(job["store"]),
            TrainingSpec.model_validate(job["spec"]),
            [plucks(6, 1)],
            [plucks(1, 2)],
            on_progress=lambda state, speed: say("step", state.step),
            stop=termination_requested,
        )
    say("finished" if outcome.finished else "stopped", outcome.step)


if __name__ == "__main__":
    rave_module()  # imports RAVE, once for all children
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            work(json.loads(line))
            os._exit(0)
        say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
