"""The bookkeeping of runs on a cluster, without a cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from rave_dist.cluster.hosts import Cluster
from rave_dist.errors import ClusterError
from rave_dist.options import Placement
from rave_dist.records import RunActivity
from rave_dist.scheduling.admission import Candidate, Host, Need, Share
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import record_of, write_record
from rave_dist.training.needs import Needs
from rave_dist.training.on_ray import _Fleet, _measure
from rave_dist.training.run_item import RunItem
from rave_dist.training.speeds import Speeds
from tests.sample_records import dry_run_result, run_record, training_spec


def _item(store: Store) -> RunItem:
    spec = training_spec()
    return RunItem(store, spec, record_of(store, spec), "waiting", candidate=Candidate("tabla", Need()))


def test_a_record_that_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run that waits or has failed is running for `status` until the whole library has ended."""
    import faulty_store

    monkeypatch.setenv(faulty_store.VARIABLE, str(tmp_path))
    store = Store("faulty://store")
    item = _item(store)
    fleet = _Fleet(store, [item], needs=None, publish=None, export=None, most=None)  # type: ignore[arg-type]
    key = item.record.key
    fault = {"line": f"write {key}", "number": 1, "kind": "refused"}
    faulty_store.control("store", "fault").write_text(json.dumps(fault))
    item.keep(activity="waiting")
    assert not store.exists(key)
    fleet._refresh()
    assert record_of(store, item.spec).activity == "waiting"
    written = store.read_bytes(key)
    fleet._refresh()
    assert store.read_bytes(key) == written


@pytest.mark.parametrize(
    ("activity", "known", "tested", "expected"),
    [
        ("starting", False, False, True),
        ("copying audio", False, False, False),  # for an hour perhaps
        ("dry run", False, False, True),
        ("dry run", True, False, False),
        ("dry run", False, True, False),  # by another run since, which may have failed
    ],
)
def test_runs_wait_for_a_dry_run_of_their_step_but_not_for_a_copy(
    activity: RunActivity, known: bool, tested: bool, expected: bool, local_store: Store
) -> None:
    item = _item(local_store)
    if known:
        result = dry_run_result(item.spec, device="this machine")
        result.save(local_store, result.key)
    needs = Needs(local_store, [item.spec], [Host("a", 2)], Speeds(local_store, "band", ["tabla"], None))
    fleet = _Fleet(local_store, [item], needs, publish=None, export=None, most=None)  # type: ignore[arg-type]
    assert not fleet._is_testing(item)
    item.stage, item.record = "training", item.record.model_copy(update={"state": "running", "activity": activity})
    if tested:
        fleet._tested.add(item.step_id)
    assert fleet._is_testing(item) == expected


def test_a_library_wants_the_hosts_of_its_workers_and_none_while_it_may_start_nothing(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise another library leaves hosts free for it that it does not take."""
    claims: list[tuple[str, ...]] = []
    hosts = (Host("a", 2), Host("b", 2), Host("small", 1))
    training, waiting = _item(local_store), _item(local_store)
    training.stage, training.share = "training", Share("a", 1)
    waiting.candidate = Candidate("pair", Need(2, workers=2))
    needs = Needs(local_store, [waiting.spec], hosts, Speeds(local_store, "band", ["tabla"], None))
    fleet = _Fleet(local_store, [training, waiting], needs, publish=None, export=None, most=1)  # type: ignore[arg-type]
    fleet._tested.add(waiting.step_id)
    busy = Cluster(hosts, frozenset(), {host.id: {} for host in hosts})
    monkeypatch.setattr(Cluster, "now", lambda: busy)

    def lead(*, taken: float, wants: Iterable[str]) -> tuple[float, set[str]]:
        claims.append(tuple(wants))
        return math.inf, set()

    monkeypatch.setattr(fleet._rivals, "lead", lead)
    fleet._start()
    assert record_of(local_store, waiting.spec).waits_for == "its turn (max_concurrent: 1)"
    fleet._most = 2
    fleet._start()
    assert claims == [(), ("a", "b")]


def test_the_speed_of_a_run_is_that_of_its_threads(local_store: Store) -> None:
    spec = training_spec()
    past = run_record(step=30, phase_1_steps=20, seconds=60.0, device="this machine", threads=1)
    spec.save(local_store, past.folder.spec)
    write_record(local_store, past)
    speeds = Speeds(local_store, "band", ["tabla"], None)
    (one, source), (four, _) = (speeds.of(spec, cpus=cpus) for cpus in (1, 4))
    assert source == "measured"
    assert (one.phase_1, one.phase_2) == pytest.approx((4 * four.phase_1, 4 * four.phase_2))
    assert 20 * one.phase_1 + 10 * one.phase_2 == pytest.approx(60)


def test_a_run_that_began_on_a_large_host_continues_on_a_laptop(local_store: Store) -> None:
    item = _item(local_store)
    item.record = write_record(local_store, item.record.model_copy(update={"threads": 8}))
    _measure(local_store, [item], [Host("laptop", 2)])
    assert item.candidate.need.cpus == 2
    item.spec = item.spec.model_copy(update={"placement": Placement(labels={"role": "worker"})})
    with pytest.raises(ClusterError, match="no host has the resources"):
        _measure(local_store, [item], [Host("card", 2, labels=(("role", "head"),))])
