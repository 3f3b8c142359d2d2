"""Converts recordings as the command does, in processes that kill themselves: ``python kill_worker.py``, one JSON job a line.

Each job ``{store, models, recordings, output, scratch, root, finished, moments}`` has its own process, forked after the slow
imports. It counts moments: every file below ``root`` that is opened, renamed or removed, every folder that is made, and every
chunk that a model plays. Once the journal has ``finished`` entries, the process ends by SIGKILL after ``moments`` more. Then
this program writes the exit code, and how many moments there were.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from rave_dist import archives
from rave_dist.conversion import in_process, table  # noqa: F401 (before the fork)
from rave_dist.conversion.convert import Converter
from rave_dist.records import ConversionParameters, Treatment
from rave_dist.storage.store import Store

MOMENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


class Killer:
    """Counts moments, and ends this process at one of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.finished = sum(1 for _ in Path(job["store"]).glob("conversions/*/journal/*.json"))
        self.left = job["moments"]
        self.count = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in MOMENTS and str(arguments[0]).startswith(self.job["root"]):
            self.moment()
            if event == "os.rename" and str(arguments[1]).startswith(self.job["store"]) and "/journal/" in str(arguments[1]):
                self.finished += 1

    def moment(self) -> None:
        self.count += 1
        if self.finished < self.job["finished"]:
            return
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def convert(job: dict[str, Any]) -> int:
    tempfile.tempdir = job["scratch"]
    torch.set_num_threads(1)
    killer = Killer(job)
    play = Converter.play

    def played(self: Converter, *arguments: Any, **options: Any) -> Any:
        killer.moment()
        return play(self, *arguments, **options)

    Converter.play = played  # type: ignore[method-assign]
    sys.addaudithook(killer.hook)
    archives.convert(
        Store(job["store"]),
        job["models"],
        [job["recordings"]],
        job["output"],
        parameters=ConversionParameters(treatment=Treatment(mix=0.9, match_loudness="file")),
        chunk_seconds=0.5,
        workers=None,
    )
    return killer.count


if __name__ == "__main__":
    for line in iter(sys.stdin.readline, ""):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.write(writing, b"%d" % convert(json.loads(line)))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(reading, "rb") as counted:
            print(code, int(counted.read() or 0), flush=True)
