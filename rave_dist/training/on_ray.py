"""Runs of a library on Ray: admits them, tries again those whose process dies, and keeps their records."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError

from rave_dist import signals
from rave_dist.cluster import hosts
from rave_dist.cluster.rivals import Rivals
from rave_dist.errors import ClusterError, RaveDistError, StoreError
from rave_dist.records import ModelFolder, Problem, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Candidate, Host, Need, Share, admit, cost, cpus_per_run, has_room, missing
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.training import needs
from rave_dist.training.gauges import Gauges
from rave_dist.training.heartbeat import disown, record_of, seconds_between_reads, stop_key, stop_through_store, write_record
from rave_dist.training.process import (
    MAX_FAILURES,
    RESUME,
    RETRY_SECONDS,
    Publish,
    explain,
    publish_one,
    tidy_hosts,
    train_one,
    wants_more_memory,
)
from rave_dist.training.speeds import Speeds, slowest_card
from rave_dist.training.state.outputs import read_result
from rave_dist.training.train_group import train_together

if TYPE_CHECKING:
    from rave_dist.training.preflight.dry_run import Export  # which imports torch and RAVE

STOP_SECONDS = 60.0
"""Time for runs to save their state when the command is interrupted."""

_CANCEL_SECONDS, _POLL_SECONDS = 10.0, 0.5

Stage = Literal["waiting", "training", "trained", "publishing", "ended"]


@dataclass
class _Item:
    """One run: its record, and its pending tasks."""

    spec: TrainingSpec
    record: RunRecord
    stage: Stage
    candidate: Candidate | None = None
    share: Share | None = None
    task: ray.ObjectRef[Any] | None = None
    stored: bool = True
    furthest: int = 0  # the last step that it has reached
    failures: int = 0  # since then
    failed_on: frozenset[str] = frozenset()  # the hosts of these failures
    starts: int = 0
    alone: bool = False  # it ran out of memory next to others
    is_disowned: bool = False  # an earlier process of it was asked to stop
    leaves: bool = False  # it was asked to save its state, because its host is to end
    due: float = 0.0  # the time of `time.monotonic` before which it does not start again

    @property
    def is_due(self) -> bool:
        """Whether it may start, again or for the first time."""
        return time.monotonic() >= self.due

    @property
    def is_training(self) -> bool:
        """Whether it is training, according to its last record."""
        return self.stage == "training" and self.record.state == "running" and self.record.activity == "training"


def train_library(
    store: Store,
    specs: Sequence[TrainingSpec],
    *,
    publish: Publish,
    export: Export | None = None,
    most: int | None = None,
    progress: Callable[[Sequence[RunRecord]], None] = lambda records: None,
    stage: Callable[[str], None] = lambda name: None,
) -> list[RunRecord]:
    """Trains runs, as many at once as the cluster allows, and publishes each when it ends; needs a connected Ray.

    Finished runs are skipped; others resume from their last checkpoints. A failure is written to the run's record and does
    not stop the others.

    Args:
        store: of the datasets and runs.
        specs: at most one for each instrument.
        publish: publishes the model of a finished run and reports its activities; called in a process of the cluster.
        export: exports a run folder in the dry runs; None skips that part.
        most: how many train at the same time; None for as many as fit.
        progress: called with all records every two seconds, in the order of the specs.
        stage: called with the activity before the first run can start.

    Returns:
        The last records, in the order of the specs.

    Raises:
        ClusterError: no host has the resources for any of the runs, or the head of the cluster is gone.
        StoreError: the store cannot be used.
        KeyboardInterrupt: raised again after the runs have saved their state.
    """
    items = at_once(lambda spec: _begin(store, spec), specs)
    todo = [item for item in items if item.stage != "ended"]
    if todo:
        stage("measuring a step")
        _measure(store, todo)
        stage("training")
        fleet = _Fleet(store, items, publish, export, most)
        with signals.allow(fleet.seconds_to_stop):
            try:
                fleet.run(progress)
            except ClusterError:  # nothing of the cluster can be reached
                stop_through_store(store, [item.spec for item in items if item.stage == "training"])
                raise
            except BaseException:
                fleet.stop()
                raise
    progress([item.record for item in items])
    return [item.record for item in items]


def _begin(store: Store, spec: TrainingSpec) -> _Item:
    """The remaining work of a run, from the store."""
    record = record_of(store, spec)
    result = read_result(store, spec)
    trained = result is not None and result.complete
    was_killed = record.activity is not None and not trained  # with its command; its host may be out of reach
    if was_killed:
        disown(store, spec, record)
    else:
        store.delete(stop_key(spec))
    if trained and record.state == "done" and _is_published(store, record):
        return _Item(spec, record, "ended")
    fields = {"state": "waiting", "activity": "waiting for room", "error": None, "steps_per_second": None, "retries": 0}
    record = record.model_copy(update=fields)
    return _Item(spec, write_record(store, record), "trained" if trained else "waiting", is_disowned=was_killed)


def _is_published(store: Store, record: RunRecord) -> bool:
    name, _, version = (record.model or "").rpartition("@")
    return bool(name) and store.exists(ModelFolder.of(name, version).card)


class _Fleet:
    def __init__(self, store: Store, items: list[_Item], publish: Publish, export: Export | None, most: int | None) -> None:
        self._store, self._items = store, items
        self._publish, self._export, self._most = publish, export, most
        self._rivals = Rivals()
        self._taken = 0.0  # card-seconds of the runs that were started
        self._told = 0.0
        self._gauges = Gauges()
        self._tidies = any(item.is_disowned or item.stage == "trained" for item in items)  # a command was killed

    def run(self, progress: Callable[[Sequence[RunRecord]], None]) -> None:
        """Runs until every run has ended."""
        while any(item.stage != "ended" for item in self._items):
            self._start()
            busy = [item.task for item in self._items if item.task is not None]
            done, _ = ray.wait(busy, timeout=_POLL_SECONDS) if busy else ([], [])
            for item in self._items:
                if item.task in done:
                    self._ended(item)
            if not busy:
                time.sleep(_POLL_SECONDS)
            if done or time.monotonic() - self._told > seconds_between_reads(len(self._busy())):
                self._refresh()
                progress([item.record for item in self._items])
                self._gauges.set([item.record for item in self._items])
                self._told = time.monotonic()
        self._rivals.leave()
        if self._tidies:
            tidy_hosts()
        for item in self._items:
            if not item.stored:
                self._write(item)
            if item.is_disowned:
                self._store.delete(stop_key(item.spec))

    def seconds_to_stop(self) -> float:
        """How long `stop` may take: before its first step a run has nothing to save."""
        return STOP_SECONDS + _CANCEL_SECONDS if any(item.is_training for item in self._items) else 0.0

    def stop(self) -> None:
        """Lets training runs save their state, ends everything, and updates the records."""
        try:
            training = [item for item in self._items if item.stage == "training" and item.task is not None]
            self._refresh()
            for item in training:
                if item.is_training:
                    self._store.write_bytes(stop_key(item.spec), b"")
                else:  # it has nothing to save yet
                    ray.cancel(item.task)
            if training:
                ray.wait([item.task for item in training], num_returns=len(training), timeout=STOP_SECONDS)
        finally:
            self._rivals.leave()
            tasks = [item.task for item in self._items if item.task is not None]
            # Only running tasks: Ray 2.60 aborts the whole driver when a cancelled task has just ended.
            pending = ray.wait(tasks, num_returns=len(tasks), timeout=0)[1] if tasks else []
            for task in pending:
                ray.cancel(task)
            if pending:
                pending = ray.wait(pending, num_returns=len(pending), timeout=_CANCEL_SECONDS)[1]
            for task in pending:
                ray.cancel(task, force=True)
            for item in self._items:
                if item.stage != "ended":
                    self._keep(item, state="waiting", activity=None)
                with contextlib.suppress(StoreError):
                    self._store.delete(stop_key(item.spec))

    def _start(self) -> None:
        """Starts to publish finished runs, and starts waiting runs as resources allow."""
        draining = hosts.draining()
        known = hosts.hosts(draining)
        self._leave(draining)
        publishing = sum(item.stage == "publishing" for item in self._items)
        for item in self._items:
            if item.stage == "trained" and item.is_due and publishing < max(1, sum(int(host.cpus) for host in known)):
                item.task = publish_one.remote(self._store, item.spec, item.record, self._publish)
                item.stage = "publishing"
                publishing += 1
        waiting = {item.spec.instrument: item for item in self._items if item.stage == "waiting"}
        for item in waiting.values():
            _choose_hosts(item, known)
        ready = [item.candidate for item in waiting.values() if item.candidate is not None and item.is_due]
        needs_of_all = {candidate.need for candidate in ready}
        lead, theirs = self._rivals.lead(
            taken=self._taken, wants=[h.id for h in known if any(has_room([h], n) for n in needs_of_all)]
        )
        shares = [item.share for item in self._items if item.share is not None]
        room = hosts.room([host for host in known if host.id not in theirs], shares)
        most = None if self._most is None else self._most - len(shares)
        for candidate, share in admit(ready, room, most=most, allowance=math.inf if theirs else lead):
            self._taken += cost(candidate, room)
            self._train(waiting.pop(candidate.name), share)
        reasons = {need: missing(known, need) for need in needs_of_all}
        for item in waiting.values():
            reason = reasons.get(item.candidate.need, "") if item.candidate is not None else ""
            if reason != item.record.waits_for:
                self._keep(item, waits_for=reason)

    def _leave(self, draining: set[str]) -> None:
        """Asks runs on hosts that are to end to save their state; they continue elsewhere."""
        for item in self._items:
            if item.share is not None and item.share.hosts & draining and not item.leaves:
                with contextlib.suppress(StoreError):  # tried again
                    self._store.write_bytes(stop_key(item.spec), b"")
                    item.leaves = True

    def _train(self, item: _Item, share: Share) -> None:
        if item.leaves:
            try:
                self._disown(item)
            except StoreError:  # tried again
                return
            item.leaves = False
        assert item.candidate is not None
        # Before its process writes the record, which is valid from then on.
        expected = item.record.expected_seconds or round(item.record.seconds + item.candidate.seconds, 1)
        fields = {"retries": item.starts, "expected_seconds": expected}
        self._keep(item, state="waiting", activity="starting", waits_for="", **fields)
        item.starts += 1
        place = hosts.affinity(share)
        start: Any = train_together.options(scheduling_strategy=place)  # Ray Train takes the resources for the workers
        if not share.others:
            start = train_one.options(num_cpus=share.cpus, num_gpus=share.gpus, memory=share.memory, scheduling_strategy=place)
        item.task = start.remote(self._store, item.spec, share, self._export)
        item.stage, item.share = "training", share

    def _ended(self, item: _Item) -> None:
        """Handles the result of a task."""
        stage, task, share, item.task, item.share = item.stage, item.task, item.share, None, None
        assert task is not None
        before: Stage = "waiting" if stage == "training" else "trained"
        try:
            outcome: RunRecord | Problem = ray.get(task)
        except (RayError, RaveDistError) as error:
            outcome = explain(error)
            # A process of it or a host is dead, or only out of reach.
            if item.spec.workers > 1 or not isinstance(error, RaveDistError | RayTaskError):
                self._tidies = True
                self._refresh_one(item)
                with contextlib.suppress(StoreError):
                    self._disown(item)
            if stage == "training" and item.spec.workers == 1 and wants_more_memory(error) and not item.alone:
                self._retry_alone(item)
                return
            if self._may_try_again(item, share):
                self._wait(item, before)
                return
        if stage == "training" and isinstance(outcome, RunRecord) and outcome.state == "waiting":
            if item.leaves or self._may_try_again(item, share):
                self._wait(item, before)
                return
            outcome = Problem(what="the training process was terminated (SIGTERM) again and again", fix=RESUME)
        if isinstance(outcome, Problem):
            self._keep(item, state="failed", activity=None, error=outcome)
            item.stage = "ended"
        elif outcome.state == "failed":
            item.record, item.stage = outcome, "ended"
        elif stage == "publishing":
            self._keep(item, state="done", activity=None, model=outcome.model, verdict=outcome.verdict, error=None)
            item.stage = "ended"
        else:
            item.record, item.stage = outcome, "trained"

    def _disown(self, item: _Item) -> None:
        disown(self._store, item.spec, item.record)
        item.is_disowned = True

    def _retry_alone(self, item: _Item) -> None:
        """Lets a run wait for a whole card, or all of a host's memory."""
        assert item.candidate is not None
        need = item.candidate.need
        all_of_it = Need(need.cpus, sys.maxsize, None if need.gpu_bytes is None else 0, need.accelerator, need.labels)
        item.candidate, item.alone = replace(item.candidate, need=all_of_it), True
        self._wait(item, "waiting")

    def _wait(self, item: _Item, stage: Stage) -> None:
        self._keep(item, state="waiting", activity="waiting for room")
        item.stage = stage

    def _may_try_again(self, item: _Item, share: Share | None) -> bool:
        """Whether a run whose process has failed is tried again: it came further than ever, or did not fail too often."""
        self._refresh_one(item)
        if item.record.step > item.furthest:
            item.furthest, item.failures, item.failed_on = item.record.step, 0, frozenset()
        item.failures += 1
        item.failed_on |= share.hosts if share is not None else set()
        if item.failures > MAX_FAILURES:
            return False
        item.due = time.monotonic() + RETRY_SECONDS[item.failures - 1]
        return True

    def _keep(self, item: _Item, **fields: Any) -> None:
        """Changes a run's record; if the store is not available now, it is written at the end."""
        self._refresh_one(item)
        item.record = item.record.model_copy(update={"steps_per_second": None, **fields})
        item.stored = False
        with contextlib.suppress(StoreError):
            self._write(item)

    def _write(self, item: _Item) -> None:
        item.record = write_record(self._store, item.record)
        item.stored = True

    def _refresh(self) -> None:
        """Reads the records of the runs that are at work, and writes those that could not be written before."""
        busy = self._busy()
        at_once(self._refresh_one, busy)
        with contextlib.suppress(StoreError):
            at_once(self._write, [item for item in self._items if not item.stored and item not in busy])

    def _busy(self) -> list[_Item]:
        return [item for item in self._items if item.stage in ("training", "publishing")]

    def _refresh_one(self, item: _Item) -> None:
        """Updates the record from the store; unchanged while the store is not available."""
        with contextlib.suppress(StoreError):
            item.record = record_of(self._store, item.spec)


def _choose_hosts(item: _Item, known: Sequence[Host]) -> None:
    """A run that failed twice in succession leaves the hosts where it did, for example one with a full disk, if it can."""
    assert item.candidate is not None
    need = item.candidate.need
    if item.failures > 1 or need.avoid:
        need = replace(need, avoid=item.failed_on if item.failures > 1 else frozenset())
        item.candidate = replace(item.candidate, need=need if has_room(known, need) else replace(need, avoid=frozenset()))


def _measure(store: Store, items: Sequence[_Item]) -> None:
    """Determines what runs need, from what was measured of their configurations.

    Raises:
        ClusterError: no host could hold any of the runs.
    """
    known = hosts.hosts(hosts.draining())
    speeds = Speeds(store, items[0].spec.library, [item.spec.instrument for item in items], slowest_card(known))
    cpus = 1 if speeds.card is not None else cpus_per_run(known, sum(item.spec.workers for item in items))
    for item in items:
        item.candidate = needs.candidate(item.spec, item.record, speeds, cpus=cpus)
        item.furthest = item.record.step
    all_needs = [item.candidate.need for item in items if item.candidate is not None]
    if not any(has_room(known, need) for need in all_needs):  # otherwise the others wait for a host that joins
        raise ClusterError("no host has the resources for a training run", fix=f"add {missing(known, all_needs[0])}")
