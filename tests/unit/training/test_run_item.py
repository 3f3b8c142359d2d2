"""The attempts of a run and the hosts that it avoids, without a cluster."""

from __future__ import annotations

from typing import Literal

import pytest

from rave_dist.scheduling.admission import ALL_MEMORY, Candidate, Host, Need, Share
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import record_of, stop_key, write_record
from rave_dist.training.run_item import MAX_FAILURES, MAX_LOSSES, RunItem
from tests.sample_records import training_spec


def _item(store: Store) -> RunItem:
    spec = training_spec()
    return RunItem(store, spec, record_of(store, spec), "waiting", candidate=Candidate("tabla", Need()))


@pytest.mark.parametrize(
    ("failed", "known", "avoided"),
    [
        ("full", "full other", ""),
        ("full full", "full other", "full"),
        ("full full other", "full other", "full"),  # what failed on the other was something else, as a store that is away
        ("full full", "full", ""),  # there is no other
        ("full full +", "full other", ""),  # it has come further since
    ],
)
def test_a_run_leaves_a_host_where_it_failed_twice(failed: str, known: str, avoided: str, local_store: Store) -> None:
    item = _item(local_store)
    for host in failed.split():
        if host == "+":
            write_record(local_store, item.record.model_copy(update={"step": 10}))
            host = "full"
        assert item.may_try_again(Share(host, 1))
    for _ in range(2):
        item.choose_hosts([Host(name, 2) for name in known.split()])
        assert item.candidate.need == Need(avoid=frozenset(avoided.split()))


def test_lost_hosts_and_a_store_that_is_away_do_not_count_as_failures_of_the_run(local_store: Store) -> None:
    item = _item(local_store)
    for _ in range(MAX_FAILURES):
        assert item.may_try_again(None)
    for number in range(MAX_LOSSES):
        assert item.may_try_again(Share(f"lost {number}", 1), is_loss=True)
    assert not item.is_due
    assert not item.may_try_again(None, is_loss=True), "the store is away for good"
    write_record(local_store, item.record.model_copy(update={"step": 10}))
    assert item.may_try_again(None)
    assert item.is_due


def test_a_run_outlives_the_loss_of_the_largest_host_and_keeps_its_threads(local_store: Store) -> None:
    """Eight threads on three CPUs are slower, and round as before."""
    item = _item(local_store)
    item.candidate = Candidate("tabla", Need(8, labels=(("role", "worker"),)))
    worker = (("role", "worker"),)
    item.choose_hosts([Host("large", 8, labels=worker), Host("small", 3, labels=worker)])
    assert item.candidate.need.cpus == 8
    item.choose_hosts([Host("head", 16), Host("small", 3, labels=worker)])
    assert item.candidate.need.cpus == 3
    item.choose_hosts([])
    assert item.candidate.need.cpus == 3
    item.record = item.record.model_copy(update={"threads": 8})
    assert item.threads == 8
    item.spec = item.spec.model_copy(update={"workers": 2})
    assert item.threads == 3


@pytest.mark.parametrize(
    ("need", "memory", "alone"),
    [
        (Need(2, 5), "device", Need(2, ALL_MEMORY)),
        (Need(2, 5), "host", Need(2, ALL_MEMORY)),
        (Need(2, 5, 7, "H100", avoid=frozenset(["full"])), "device", Need(2, 5, 0, "H100", avoid=frozenset(["full"]))),
        (Need(2, 5, 7), "host", Need(2, ALL_MEMORY, 0)),
    ],
)
def test_a_run_out_of_memory_waits_for_all_of_what_it_lacked(
    need: Need, memory: Literal["device", "host"], alone: Need, local_store: Store
) -> None:
    """A run that lacks memory of its card does not wait until all cards of the host are free."""
    item = _item(local_store)
    item.candidate, item.stage = Candidate("tabla", need, 60.0, priority=1), "training"
    item.retry_alone(memory)
    assert item.candidate == Candidate("tabla", alone, 60.0, priority=2)
    assert (item.stage, item.alone, item.record.activity) == ("waiting", True, "waiting")


def test_the_process_of_a_killed_command_is_asked_to_stop(local_store: Store) -> None:
    """It may live on for a minute where the head of its cluster was lost."""
    spec = training_spec()
    local_store.write_bytes(stop_key(spec), b"")
    assert not RunItem.of(local_store, spec).is_disowned
    assert not local_store.exists(stop_key(spec))
    write_record(local_store, record_of(local_store, spec).model_copy(update={"activity": "training", "attempt": "a1"}))
    assert RunItem.of(local_store, spec).is_disowned
    assert local_store.read_bytes(stop_key(spec)) == b"a1"
