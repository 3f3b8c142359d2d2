"""The scheduler over whole nights, without Ray."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.scheduling.admission import Candidate, Host, Need
from rave_dist.scheduling.simulation import Faults, Span, lower_bound, simulate

GIB = 2**30
HOUR = 3600.0


def cluster(hosts: int, gpus: int = 8) -> list[Host]:
    return [Host(f"host {n}", cpus=64, gpus=gpus, gpu_bytes=80 * GIB) for n in range(hosts)]


def library(runs: int, seed: int) -> list[Candidate]:
    """Instruments of mixed size: steps of 2 to 40 GiB, mostly one to five hours, twelve at most."""
    draw = random.Random(seed)

    def run(name: str) -> Candidate:
        (gib,) = draw.choices((2, 3, 8, 12, 40), (10, 40, 20, 20, 10))
        return Candidate(name, Need(gpu_bytes=gib * GIB), min(12.0, draw.lognormvariate(0.6, 0.9)) * HOUR)

    return [run(f"run {n}") for n in range(runs)]


def end(spans: list[Span]) -> float:
    return max(span.end for span in spans)


def unfinished(runs: list[Candidate], spans: list[Span]) -> set[str]:
    return {run.name for run in runs} - {span.name for span in spans if span.ending == "done"}


def test_equal_runs_fill_the_cluster_exactly() -> None:
    runs = [Candidate(str(n), Need(gpu_bytes=30 * GIB), HOUR) for n in range(8)]
    spans = simulate(runs, cluster(1, gpus=2))
    assert end(spans) == 2 * HOUR == lower_bound(runs, cluster(1, gpus=2))


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_instruments_on_64_gpus_end_near_the_lower_bound(seed: int) -> None:
    runs, hosts = library(1000, seed), cluster(8)
    spans = simulate(runs, hosts)
    assert not unfinished(runs, spans)
    assert end(spans) <= 1.05 * lower_bound(runs, hosts)


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_that_is_too_small_is_kept_full(seed: int) -> None:
    """With fewer cards the shared work is the bound: cards of which no run fits the rest, and the end, cost the difference."""
    runs, hosts = library(1000, seed), cluster(3)
    assert end(simulate(runs, hosts)) <= 1.1 * lower_bound(runs, hosts)


@pytest.mark.parametrize("seed", range(3))
def test_with_failures_and_late_and_lost_hosts_too(seed: int) -> None:
    runs, hosts = library(1000, seed), cluster(8)
    draw = random.Random(seed)
    faults = Faults(
        joins={"host 1": 2 * HOUR, "host 2": 4 * HOUR},
        losses={"host 3": 5 * HOUR, "host 4": 9 * HOUR},
        deaths={run.name: [draw.uniform(60, run.seconds)] for run in draw.sample(runs, 50)},
    )
    spans = simulate(runs, hosts, faults=faults, start_seconds=60)
    assert not unfinished(runs, spans)
    assert {span.ending for span in spans} == {"done", "process died", "host lost"}
    assert end(spans) <= 1.05 * lower_bound(runs, hosts, faults=faults)


def test_a_lost_host_costs_what_was_done_since_the_last_checkpoint() -> None:
    run = Candidate("run", Need(gpu_bytes=GIB), HOUR)
    spans = simulate([run], cluster(2), faults=Faults(losses={"host 0": 1500.0}))
    (first, second) = spans
    assert (first.share.host, first.ending, first.end) == ("host 0", "host lost", 1500.0)
    assert (second.share.host, second.ending) == ("host 1", "done")
    assert second.end - second.start == HOUR - 1200


def test_a_run_that_no_host_can_hold_is_named() -> None:
    with pytest.raises(ValueError, match="no host has room for big"):
        simulate([Candidate("big", Need(cpus=100, gpu_bytes=GIB), HOUR)], cluster(1))


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 3))
def test_no_card_holds_more_than_itself_at_any_moment(seed: int, runs: int, hosts: int) -> None:
    spans = simulate(library(runs, seed), cluster(hosts, gpus=2))
    for moment in {span.start for span in spans}:
        held: dict[tuple[str, int], float] = {}
        for span in spans:
            if span.start <= moment < span.end:
                card = (span.share.host, span.share.gpu)
                held[card] = held.get(card, 0.0) + span.share.gpus
        assert max(held.values()) <= 1 + 1e-6
