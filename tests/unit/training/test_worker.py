"""What a training process does when it is stopped in its dry run, and after a run that the dry run had not predicted."""

from __future__ import annotations

import gc
import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from rave_dist import isolated
from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import Split
from rave_dist.errors import InsufficientMemoryError, TrainingError
from rave_dist.records import DryRunResult
from rave_dist.storage.store import Store
from rave_dist.training import worker
from rave_dist.training.heartbeat import stop_key
from tests.sample_records import training_spec

SPEC = training_spec()


@pytest.fixture(autouse=True)
def _audio(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = np.random.default_rng(0).normal(0, 3000, (1, 44100 * 3)).astype(np.int16)
    monkeypatch.setattr(worker, "load_manifest", lambda *_: None)
    monkeypatch.setattr(worker, "split_dataset", lambda *_, **__: Split([Segment("a", 0, pcm)], [Segment("b", 0, pcm)]))


def _use_new_pages(size: int) -> None:
    """Makes the process larger for a moment; an array could lie in memory that the allocator kept from earlier tests."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for page in range(0, size, mmap.PAGESIZE):
            pages[page] = 1


def test_a_dry_run_can_be_stopped(local_store: Store) -> None:
    local_store.write_bytes(stop_key(SPEC), b"")
    record = worker.work(local_store, SPEC, threads=1)
    assert (record.state, record.step) == ("waiting", 0)
    assert {entry.key for entry in local_store.list("")} == {record.key, stop_key(SPEC)}


def test_sigterm_ends_the_copy_of_the_audio(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: Any, stop: Callable[[], bool], **__: Any) -> Split:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        raise isolated.Stopped

    monkeypatch.setattr(worker, "split_dataset", copy)
    record = worker.work(local_store, SPEC, threads=1)
    assert (record.state, record.activity, record.step, record.error) == ("waiting", None, 0, None)
    assert [entry.key for entry in local_store.list("")] == [record.key]


def test_a_note_that_did_not_hold_is_withdrawn(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[DryRunResult] = []

    def results() -> list[DryRunResult]:
        return [DryRunResult.load(local_store, entry.key) for entry in local_store.list("dry_runs")]

    def fail(error: Exception) -> Any:
        def train(*_: Any, **__: Any) -> None:
            noted.extend(results())
            gc.collect()  # what earlier tests left must not be freed while more is allocated
            memory = psutil.Process().memory_info()
            own = memory.rss - memory.shared  # earlier tests may have left more than is used during the dry run
            _use_new_pages(max(0, noted[-1].host_bytes - own) + (300 << 20))
            raise error

        return train

    for error, left in ((TrainingError("it failed"), 1), (InsufficientMemoryError("it does not fit"), 0)):
        monkeypatch.setattr(worker, "train", fail(error))
        assert worker.work(local_store, SPEC, threads=1).state == "failed"
        assert len(results()) == left
        for result in results():
            assert result.host_bytes > noted[-1].host_bytes + (100 << 20), "the run used more than its dry run"
            assert result.device_bytes > noted[-1].device_bytes + (100 << 20)
    assert len(noted) == 2
    assert noted[0].host_bytes < noted[1].host_bytes, "the next run knows it"


def test_the_record_says_what_the_worker_does(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Witness(worker.Heartbeat):
        def update(self, **fields: Any) -> None:
            before = self.record.activity
            super().update(**fields)
            told.append((before, self.record.activity, self.record.state))

    def train(*_: Any, **__: Any) -> None:
        raise TrainingError("it failed")

    monkeypatch.setattr(worker, "Heartbeat", Witness)
    monkeypatch.setattr(worker, "train", train)
    record = worker.work(local_store, SPEC, threads=1)
    assert told == [
        ("starting", "copying audio", "running"),
        ("copying audio", "dry run", "running"),
        ("dry run", "training", "running"),
        ("training", None, "failed"),
    ]
    assert (record.activity, record.budget) == (None, SPEC.budget)
