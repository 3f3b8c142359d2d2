"""Follows a night in `status` and in the table of processes, and keeps every contradiction between the two."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import psutil

from rave_dist import pipeline
from rave_dist.errors import StoreError
from rave_dist.library.manifest import Library
from rave_dist.records import ModelFolder, RunRecord

TRUE_WITHIN = 15.0
"""Seconds after a death within which `status` knows it."""

BUSY_SECONDS = 30.0
"""Seconds after which a process that works must be known: a starved one may miss some heartbeats."""

OF_RUNS = ("ray::train_one", "ray::RayTrainWorker")
"""The beginnings of the titles of processes that train."""

_POLL_SECONDS = 1.0
_OF_TRAINING = ("starting", "copying audio", "dry run", "training")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def title(process: psutil.Process) -> str:
    """The first word of a process's command line: Ray's workers have the name of their task there."""
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


class Watch:
    """Reads `status` again and again in a thread.

    Args:
        library: of the night.
        healthy: names of the instruments that must not fail.
        command: the process of the command at work; None if it was killed.
    """

    def __init__(self, library: Library, healthy: Iterable[str], command: Callable[[], int | None]) -> None:
        self.contradictions: list[str] = []
        self.records: dict[str, RunRecord] = {}
        self.polls = 0
        self.most_at_once: dict[str, int] = defaultdict(int)
        self.workers: dict[str, dict[int, psutil.Process]] = defaultdict(dict)
        self.places: dict[int, str] = {}  # folders for temporary files of the workers, which say on which host they are
        self._library, self._healthy, self._command = library, set(healthy), command
        self._dead_since: dict[object, float] = {}
        self._first_seen: dict[object, float] = {}
        self._ended, self._said = threading.Event(), set[str]()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def progress(self) -> float:
        """The part of all steps that was done."""
        runs = [self.records[name] for name in self._healthy if name in self.records]
        steps = sum(run.steps for run in runs)
        return sum(run.step for run in runs) / steps if steps else 0.0

    def training(self) -> list[tuple[RunRecord, psutil.Process]]:
        """The runs that train, with their processes."""
        found = []
        for record in list(self.records.values()):
            process = self.workers[record.instrument].get(_worker(record))
            if self.is_training(record.instrument) and process is not None and is_alive(process):
                found.append((record, process))
        return found

    def is_training(self, name: str) -> bool:
        """Whether a run trains, according to its record."""
        record = self.records.get(name)
        return record is not None and record.state == "running" and record.activity == "training"

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            asked, dead = time.monotonic(), self._deaths()
            try:
                records = pipeline.status(self._library)
            except StoreError as error:
                self._contradict(f"status cannot read the store: {error}")
                continue
            self.polls += 1
            for record in records:
                self._judge(record, asked, dead)
                self.records[record.instrument] = record

    def _deaths(self) -> dict[object, float]:
        """When the processes that no longer live were first seen dead; the command's under the key ``command``."""
        now = time.monotonic()
        living: dict[object, bool] = {"command": self._command() is not None}
        for workers in self.workers.values():
            living |= {worker: is_alive(process) for worker, process in workers.items()}
        for key, lives in living.items():
            if lives:
                self._dead_since.pop(key, None)
            else:
                self._dead_since.setdefault(key, now)
        return dict(self._dead_since)

    def _judge(self, record: RunRecord, asked: float, dead: dict[object, float]) -> None:
        name, worker = record.instrument, _worker(record)
        if worker and worker not in self.workers[name]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(worker)
                if title(process).startswith(OF_RUNS):
                    self.places[worker] = process.environ().get("TMPDIR", "")
                    self.workers[name][worker] = process
        at_once = [worker for worker, process in self.workers[name].items() if is_alive(process)]
        self.most_at_once[name] = max(self.most_at_once[name], len(at_once))
        if self._lasts(("twice", name), len(at_once) > 1) > 2 * _POLL_SECONDS:
            self._contradict(f"{name} is trained by processes {at_once} at the same time")
        if record.state == "running":
            for who in ("command", worker if record.activity in _OF_TRAINING else "command"):
                if asked - dead.get(who, asked) > TRUE_WITHIN:
                    self._contradict(f"{name} is {record.activity}, but {who} had died {asked - dead[who]:.0f} s before")
        idle = record.state == "waiting" and worker in at_once
        if self._lasts(("idle", name, worker), idle) > BUSY_SECONDS:
            self._contradict(f"{name} waits ({record.activity}), but process {worker} lives")
        if record.state == "failed" and name in self._healthy:
            self._contradict(f"{name} failed: {record.error}")
        before = self.records.get(name)
        if before is not None and before.state == "done" and record.state != "done":
            self._contradict(f"{name} was done and is {record.state}")
        if record.state == "done" and (before is None or before.state != "done"):
            model, _, version = (record.model or "").rpartition("@")
            if not self._library.store.exists(ModelFolder.of(model, version).card):
                self._contradict(f"{name} is done without a card")

    def _lasts(self, key: object, is_so: bool) -> float:
        """The seconds since something was first so, without an end."""
        if not is_so:
            self._first_seen.pop(key, None)
            return 0.0
        now = time.monotonic()
        return now - self._first_seen.setdefault(key, now)

    def _contradict(self, said: str) -> None:
        without_seconds = re.sub(r"\d+ s before", "", said)
        if without_seconds not in self._said:
            self._said.add(without_seconds)
            self.contradictions.append(f"{time.strftime('%H:%M:%S')} {said}")


def _worker(record: RunRecord) -> int:
    """The process of a run's training; 0 if it had none."""
    return int((record.worker or ":0").rpartition(":")[2])
