"""The bookkeeping of runs on a cluster, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rave_dist.scheduling.admission import Candidate, Host, Need
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import record_of, stop_key, write_record
from rave_dist.training.on_ray import _begin, _choose_hosts, _Fleet, _Item
from tests.sample_records import training_spec


def _item(store: Store) -> _Item:
    spec = training_spec()
    return _Item(spec, record_of(store, spec), "waiting", candidate=Candidate("tabla", Need()))


@pytest.mark.parametrize(
    ("failures", "known", "avoided"),
    [
        (1, "full other", ""),
        (2, "full other", "full"),
        (3, "full other", "full"),
        (2, "full", ""),  # there is no other
        (0, "full other", ""),  # it has come further since
    ],
)
def test_a_run_leaves_a_host_where_it_failed_twice(failures: int, known: str, avoided: str, local_store: Store) -> None:
    item = _item(local_store)
    item.failures, item.failed_on = failures, frozenset(["full"])
    for _ in range(2):
        _choose_hosts(item, [Host(name, 2) for name in known.split()])
        assert item.candidate is not None
        assert item.candidate.need == Need(avoid=frozenset(avoided.split()))


def test_the_process_of_a_killed_command_is_asked_to_stop(local_store: Store) -> None:
    """It may live on for a minute where the head of its cluster was lost."""
    spec = training_spec()
    local_store.write_bytes(stop_key(spec), b"")
    assert not _begin(local_store, spec).is_disowned
    assert not local_store.exists(stop_key(spec))
    write_record(local_store, record_of(local_store, spec).model_copy(update={"activity": "training", "attempt": "a1"}))
    assert _begin(local_store, spec).is_disowned
    assert local_store.read_bytes(stop_key(spec)) == b"a1"


def test_a_record_that_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run that waits or has failed is running for `status` until the whole library has ended."""
    import faulty_store

    monkeypatch.setenv(faulty_store.VARIABLE, str(tmp_path))
    store = Store("faulty://store")
    item = _item(store)
    fleet = _Fleet(store, [item], publish=None, export=None, most=None)  # type: ignore[arg-type]
    key = item.record.key
    fault = {"line": f"write {key}", "number": 1, "kind": "refused"}
    faulty_store.control("store", "fault").write_text(json.dumps(fault))
    fleet._keep(item, activity="waiting for room")
    assert not store.exists(key)
    fleet._refresh()
    assert record_of(store, item.spec).activity == "waiting for room"
    written = store.read_bytes(key)
    fleet._refresh()
    assert store.read_bytes(key) == written
