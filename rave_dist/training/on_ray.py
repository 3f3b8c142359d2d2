"""Runs of a library on Ray: admits them, tries again those whose process dies, and keeps their records."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError, RayTaskError

from rave_dist import signals
from rave_dist.cluster import head
from rave_dist.cluster.groups import remove_orphaned_groups
from rave_dist.cluster.hosts import Cluster, affinity
from rave_dist.cluster.rivals import Rivals
from rave_dist.errors import ClusterError, RaveDistError, StoreError
from rave_dist.records import Problem, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Host, Share, admit, cost, has_room, missing
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.training.gauges import Gauges
from rave_dist.training.heartbeat import seconds_between_reads, stop_key, stop_through_store
from rave_dist.training.needs import Needs
from rave_dist.training.process import (
    RESUME,
    Publish,
    explain,
    is_loss,
    publish_one,
    tidy_hosts,
    train_one,
    wanted_memory,
)
from rave_dist.training.run_item import RunItem, Stage
from rave_dist.training.speeds import Speeds, slowest_card
from rave_dist.training.train_group import train_together

if TYPE_CHECKING:
    from rave_dist.training.preflight.dry_run import Export  # which imports torch and RAVE

STOP_SECONDS = 60.0
"""Time for runs to save their state when the command is interrupted."""

_CANCEL_SECONDS = 10.0
_POLL_SECONDS = 0.5


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
    items = at_once(lambda spec: RunItem.of(store, spec), specs)
    todo = [item for item in items if item.stage != "ended"]
    if todo:
        stage("measuring a step")
        needs = _measure(store, todo, Cluster.now().hosts)
        stage("training")
        fleet = _Fleet(store, items, needs, publish, export, most)
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


class _Fleet:
    def __init__(
        self, store: Store, items: list[RunItem], needs: Needs, publish: Publish, export: Export | None, most: int | None
    ) -> None:
        self._store, self._items, self._needs = store, items, needs
        # Steps (`TrainingSpec.worker_step_id`) that a run has tested since, and those of which there may be new measurements.
        self._tested, self._measured = set[str](), set[str]()
        self._publish, self._export, self._most = publish, export, most
        self._rivals = Rivals()
        self._taken = 0.0  # card-seconds of the runs that were started
        self._told = 0.0
        self._gauges = Gauges()
        # Whether a process has died, which leaves folders and groups: here, or that of an earlier command.
        self._tidies = any(item.is_disowned or item.stage == "trained" for item in items)

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
                item.write()
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
            at_once(lambda item: self._store.write_bytes(stop_key(item.spec), b""), [i for i in training if i.is_training])
            for item in training:
                if not item.is_training:  # it has nothing to save yet
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
            at_once(self._leave_waiting, self._items)

    def _leave_waiting(self, item: RunItem) -> None:
        """The last record of a run whose command ends."""
        if item.stage != "ended":
            item.keep(state="waiting", activity=None)
        with contextlib.suppress(StoreError):
            self._store.delete(stop_key(item.spec))

    def _start(self) -> None:
        """Starts to publish finished runs, and starts waiting runs as resources allow."""
        cluster = Cluster.now()
        known = cluster.hosts
        if self._tidies and any(item.spec.workers > 1 for item in self._items):
            remove_orphaned_groups()  # right after the head has answered, because this question has no time limit
        self._leave(cluster.draining)
        publishing = sum(item.stage == "publishing" for item in self._items)
        for item in self._items:
            if item.stage == "trained" and item.is_due and publishing < max(1, sum(int(host.cpus) for host in known)):
                item.task = publish_one.remote(self._store, item.spec, item.record, self._publish)
                item.stage = "publishing"
                publishing += 1
        waiting = {item.spec.instrument: item for item in self._items if item.stage == "waiting"}
        for item in waiting.values():
            item.choose_hosts(known)
        due = [item for item in waiting.values() if item.is_due]
        tests = {item.step_id: item.spec.instrument for item in self._items if self._is_testing(item)}
        ready = [item.candidate for item in due if item.step_id not in tests]
        shares = [item.share for item in self._items if item.share is not None]
        most = None if self._most is None else max(0, self._most - len(shares))
        lead, theirs = self._rivals.lead(taken=self._taken, wants=() if most == 0 else _usable(known, due))
        room = cluster.room([host for host in known if host.id not in theirs], shares)
        started: list[tuple[RunItem, Share]] = []
        for candidate, share in admit(ready, room, most=most, allowance=math.inf if theirs else lead):
            item = waiting[candidate.name]
            if item.step_id in tests:  # a run that has just been started tests it
                continue
            self._taken += cost(candidate, room)
            started.append((waiting.pop(candidate.name), share))
            if self._is_untested(item):
                tests[item.step_id] = item.spec.instrument
        at_once(lambda pair: self._train(*pair), started)
        self._say_why(waiting.values(), known, tests)

    def _is_testing(self, item: RunItem) -> bool:
        """Whether a run makes the first dry run of its step, whose result will serve the others, or is about to."""
        is_at_it = item.stage == "training" and item.record.activity != "copying audio"  # which may take long
        return is_at_it and self._is_untested(item)

    def _is_untested(self, item: RunItem) -> bool:
        return item.step_id not in self._tested and self._needs.dry_run(item.spec) is None

    def _say_why(self, waiting: Collection[RunItem], known: Sequence[Host], tests: Mapping[str, str]) -> None:
        """Writes to the records of waiting runs what they wait for."""
        is_full = self._most is not None and self._most <= sum(item.share is not None for item in self._items)
        turn = f"its turn (max_concurrent: {self._most})"
        reasons = {
            need: turn if is_full and has_room(known, need) else missing(known, need)
            for need in {item.candidate.need for item in waiting}
        }
        changed: list[tuple[RunItem, str]] = []
        for item in waiting:
            reason = reasons[item.candidate.need]
            if not item.is_due:
                reason = "the end of a pause after a failure"
            elif item.step_id in tests:
                reason = f"the dry run of {tests[item.step_id]}, which serves it too"
            if reason != item.record.waits_for:
                changed.append((item, reason))
        at_once(lambda pair: pair[0].keep(waits_for=pair[1]), changed)

    def _leave(self, draining: Collection[str]) -> None:
        """Asks runs on hosts that are to end to save their state; they continue elsewhere."""
        for item in self._items:
            if item.share is not None and not item.share.hosts.isdisjoint(draining) and not item.leaves:
                with contextlib.suppress(StoreError):  # tried again
                    self._store.write_bytes(stop_key(item.spec), b"")
                    item.leaves = True

    def _train(self, item: RunItem, share: Share) -> None:
        if item.leaves:
            try:
                item.disown()
            except StoreError:  # tried again
                return
            item.leaves = False
        # Before its process writes the record, which is valid from then on.
        expected = item.record.expected_seconds or round(item.record.seconds + item.candidate.seconds, 1)
        fields = {"retries": item.starts, "expected_seconds": expected}
        item.keep(state="waiting", activity="starting", waits_for="", **fields)
        item.starts += 1
        place = affinity(share)
        if share.others:  # Ray Train takes the resources for the workers
            item.task = train_together.options(scheduling_strategy=place).remote(
                self._store, item.spec, share, self._export, item.threads
            )
        else:
            start = train_one.options(num_cpus=share.cpus, num_gpus=share.gpus, memory=share.memory, scheduling_strategy=place)
            item.task = start.remote(self._store, item.spec, share, self._export, item.threads, item.alone)
        item.stage, item.share = "training", share

    def _ended(self, item: RunItem) -> None:
        """Handles the result of a task."""
        stage, task, share, item.task, item.share = item.stage, item.task, item.share, None, None
        if stage == "training":
            self._measured.add(item.step_id)  # it may have corrected what its dry run measured
            self._tested.add(item.step_id)  # also if it failed, so that others need not fail one after another
        assert task is not None
        before: Stage = "waiting" if stage == "training" else "trained"
        try:
            outcome: RunRecord | Problem = ray.get(task)
        except (RayError, RaveDistError) as error:
            outcome = explain(error)
            # A process of it or a host is dead, or only out of reach.
            if item.spec.workers > 1 or not isinstance(error, RaveDistError | RayTaskError):
                self._tidies = True
                item.refresh()
                with contextlib.suppress(StoreError):
                    item.disown()
            memory = wanted_memory(error) if stage == "training" and item.spec.workers == 1 and not item.alone else ""
            if memory:
                item.retry_alone(memory)
                self._tested.discard(item.step_id)
                return
            host_died = share is not None and not share.hosts <= head.nodes().keys()
            if item.may_try_again(share, is_loss=host_died or is_loss(error)):
                item.wait(before)
                return
        if stage == "training" and isinstance(outcome, RunRecord) and outcome.state == "waiting":
            if item.leaves or item.may_try_again(share):
                item.wait(before)
                return
            outcome = Problem(what="the training process was terminated (SIGTERM) again and again", fix=RESUME)
        if isinstance(outcome, Problem):
            item.keep(state="failed", activity=None, error=outcome)
            item.stage = "ended"
        elif outcome.state == "failed":
            item.record, item.stage = outcome, "ended"
        elif stage == "publishing":
            item.keep(state="done", activity=None, model=outcome.model, verdict=outcome.verdict, error=None)
            item.stage = "ended"
        else:
            item.record, item.stage = outcome, "trained"

    def _refresh(self) -> None:
        """Reads the records of the runs that are at work, and writes those that could not be written before."""
        busy = self._busy()
        at_once(RunItem.refresh, busy)
        with contextlib.suppress(StoreError):
            at_once(RunItem.write, [item for item in self._items if not item.stored and item not in busy])
        for item in busy:
            if item.is_training and item.step_id not in self._tested:
                self._tested.add(item.step_id)
                self._measured.add(item.step_id)
        self._measure_again()

    def _measure_again(self) -> None:
        """Gives runs, for their next attempt, the needs that dry runs and runs of the same step have measured since."""
        unended = [item for item in self._items if item.stage in ("waiting", "training") and not item.alone]
        changed = [item for item in unended if item.step_id in self._measured]
        with contextlib.suppress(StoreError):  # tried again
            if changed:
                self._needs.read_dry_runs([item.spec for item in changed])
            self._measured.clear()
            for item in changed:
                item.candidate = self._needs.candidate(item.spec, item.record)

    def _busy(self) -> list[RunItem]:
        return [item for item in self._items if item.stage in ("training", "publishing")]


def _usable(known: Sequence[Host], due: Iterable[RunItem]) -> list[str]:
    """The ids of the hosts that could hold one of these runs, or one of its workers if the cluster could hold them all."""
    needs = {replace(need, workers=1) for need in {item.candidate.need for item in due} if has_room(known, need)}
    return [host.id for host in known if any(has_room([host], need) for need in needs)]


def _measure(store: Store, items: Sequence[RunItem], known: Sequence[Host]) -> Needs:
    """Determines what runs need, from what was measured of their configurations.

    Raises:
        ClusterError: no host could hold any of the runs.
    """
    specs = [item.spec for item in items]
    speeds = Speeds(store, specs[0].library, [spec.instrument for spec in specs], slowest_card(known))
    needs = Needs(store, specs, known, speeds)
    for item in items:
        item.candidate = needs.candidate(item.spec, item.record)
        item.furthest = item.record.step
    all_needs = [item.candidate.need for item in items]
    if not any(has_room(known, need) for need in all_needs):  # otherwise the others wait for a host that joins
        raise ClusterError("no host has the resources for a training run", fix=f"add {missing(known, all_needs[0])}")
    return needs
