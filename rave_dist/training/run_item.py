"""One run as `rave_dist.training.on_ray` sees it: its record, attempts, and the hosts that it avoids; independent of Ray."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rave_dist.errors import StoreError
from rave_dist.records import ModelFolder, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import ALL_MEMORY, Candidate, Host, Need, Share, has_room, narrowed
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import disown, record_of, stop_key, write_record
from rave_dist.training.state.outputs import read_result

MAX_FAILURES = 3
"""Failures of a run's process after which it is not tried again, counted since the run last reached a new step."""

MAX_LOSSES = 15
"""Lost hosts, and failures because the store was unavailable, after which it is not tried again; counted in the same way."""

_RETRY_SECONDS = (0.0, 15.0, 60.0)  # before further attempts; the last one is repeated

Stage = Literal["waiting", "training", "trained", "publishing", "ended"]


@dataclass
class RunItem:
    """One run: its record, and its pending task."""

    store: Store
    spec: TrainingSpec
    record: RunRecord
    stage: Stage
    candidate: Candidate  # as the scheduler sees it
    share: Share | None = None
    task: Any = None  # of Ray
    stored: bool = True
    furthest: int = 0  # the last step that it has reached
    failures: int = 0  # since then
    losses: int = 0  # since then
    failed_on: Counter[str] = field(default_factory=Counter)  # how many of the failures and losses each host had
    starts: int = 0
    alone: bool = False  # it ran out of memory next to others
    is_disowned: bool = False  # an earlier process of it was asked to stop
    leaves: bool = False  # it was asked to save its state, because its host is to end
    due: float = 0.0  # the time of `time.monotonic` before which it does not start again

    @classmethod
    def of(cls, store: Store, spec: TrainingSpec) -> RunItem:
        """The remaining work of a run, from the store."""
        record = record_of(store, spec)
        result = read_result(store, spec)
        trained = result is not None and result.complete
        was_killed = record.activity is not None and not trained  # with its command; its host may be out of reach
        if was_killed:
            disown(store, spec, record)
        else:
            store.delete(stop_key(spec))
        unmeasured = Candidate(spec.instrument, Need())
        if trained and record.state == "done" and _is_published(store, record):
            return cls(store, spec, record, "ended", unmeasured)
        fields = {"state": "waiting", "activity": "waiting", "error": None, "steps_per_second": None, "retries": 0}
        record = write_record(store, record.model_copy(update=fields))
        return cls(store, spec, record, "trained" if trained else "waiting", unmeasured, is_disowned=was_killed)

    @property
    def step_id(self) -> str:
        """Runs with the same one share the result of a dry run."""
        return self.spec.worker_step_id

    @property
    def threads(self) -> int:
        """CPU threads of each worker: those that the run began with, even if the hosts that are left have fewer CPUs."""
        return self.record.threads_with(self.spec.workers) or self.candidate.need.cpus

    @property
    def is_due(self) -> bool:
        """Whether it may start, again or for the first time."""
        return time.monotonic() >= self.due

    @property
    def is_training(self) -> bool:
        """Whether it is training, according to its last record."""
        return self.stage == "training" and self.record.state == "running" and self.record.activity == "training"

    def refresh(self) -> None:
        """Updates the record from the store; unchanged while the store is not available."""
        with contextlib.suppress(StoreError):
            self.record = record_of(self.store, self.spec)

    def keep(self, **fields: Any) -> None:
        """Changes the record; if the store is not available now, `write` has to be called again."""
        self.refresh()
        self.record = self.record.model_copy(update={"steps_per_second": None, **fields})
        self.stored = False
        with contextlib.suppress(StoreError):
            self.write()

    def write(self) -> None:
        """Writes the record.

        Raises:
            StoreError: the store is not available.
        """
        self.record = write_record(self.store, self.record)
        self.stored = True

    def disown(self) -> None:
        """Asks its last process to stop, in case it lives on out of reach.

        Raises:
            StoreError: the store is not available.
        """
        disown(self.store, self.spec, self.record)
        self.is_disowned = True

    def wait(self, stage: Stage) -> None:
        """Lets it wait for room, to train or to be published."""
        self.keep(state="waiting", activity="waiting")
        self.stage = stage

    def retry_alone(self, memory: Literal["device", "host"]) -> None:
        """Lets it wait for a whole card, or all of a host's memory; a device without a card is its host.

        It goes before the others of its priority, of which there may always be one in its place.
        """
        need = self.candidate.need
        if need.gpu_bytes is not None:
            need = replace(need, gpu_bytes=0)
        if need.gpu_bytes is None or memory == "host":
            need = replace(need, memory=ALL_MEMORY)
        self.candidate = replace(self.candidate, need=need, priority=self.candidate.priority + 1)
        self.alone = True
        self.wait("waiting")

    def may_try_again(self, share: Share | None, *, is_loss: bool = False) -> bool:
        """Whether it is tried again after its process has failed: it came further than ever, or did not fail too often.

        Args:
            share: where the process was.
            is_loss: its host or the store was lost, for which the run is not to blame.
        """
        self.refresh()
        if self.record.step > self.furthest:
            self.furthest, self.failures, self.losses, self.failed_on = self.record.step, 0, 0, Counter()
        self.failures += not is_loss
        self.losses += is_loss
        self.failed_on.update(share.hosts if share is not None else ())
        if self.failures > MAX_FAILURES or self.losses > MAX_LOSSES:
            return False
        self.due = time.monotonic() + _RETRY_SECONDS[min(self.failures + self.losses, len(_RETRY_SECONDS)) - 1]
        return True

    def choose_hosts(self, known: Sequence[Host]) -> None:
        """Adapts the need to the hosts that are there.

        It leaves hosts where it failed twice, for example one with a full disk, if there are others: a single failure elsewhere
        says nothing of the host. It takes fewer CPUs than it has threads if all hosts are smaller.
        """
        need = replace(self.candidate.need, avoid=frozenset(host for host, count in self.failed_on.items() if count > 1))
        if need.avoid and not has_room(known, narrowed(known, need)):
            need = replace(need, avoid=frozenset())
        self.candidate = replace(self.candidate, need=narrowed(known, need))


def _is_published(store: Store, record: RunRecord) -> bool:
    name, _, version = (record.model or "").rpartition("@")
    return bool(name) and store.exists(ModelFolder.of(name, version).card)
