"""Budgets within a deadline, from the facts of real small models: the planned night ends in time and wastes none of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rave_dist.errors import ConfigurationError
from rave_dist.options import Budget
from rave_dist.records import CheckpointInfo, RunResult, TrainingSpec, Validation
from rave_dist.scheduling.admission import Host
from rave_dist.scheduling.simulation import START_SECONDS, simulate
from rave_dist.storage.store import Store
from rave_dist.training.continuation import plan_continuation
from rave_dist.training.deadline import END_SECONDS, limit_budgets
from rave_dist.training.heartbeat import write_record
from rave_dist.training.needs import Needs
from rave_dist.training.speeds import Speeds, slowest_card
from tests.sample_records import run_record, training_spec

pytestmark = pytest.mark.slow

HOUR = 3600.0
AROUND = START_SECONDS + END_SECONDS
CORES = [Host("a", cpus=2.0), Host("b", cpus=4.0)]
CARDS = [Host("a", cpus=math.inf, gpus=2, gpu_bytes=80 << 30, accelerator="H100")]


def spec(name: str, budget: Budget) -> TrainingSpec:
    return training_spec(instrument=name, budget=budget)


def end(store: Store, specs: list[TrainingSpec], hosts: list[Host]) -> float:
    """When runs with these budgets end, if every run takes all of its time."""
    speeds = Speeds(store, "band", [each.instrument for each in specs], slowest_card(hosts))
    needs = Needs(store, specs, hosts, speeds)
    runs = [needs.candidate(each, run_record(instrument=each.instrument)) for each in specs]
    whole = [replace(run, seconds=HOUR * (each.budget.hours or 0.0)) for run, each in zip(runs, specs, strict=True)]
    return max(span.end for span in simulate(whole, hosts, start_seconds=AROUND))


@pytest.mark.parametrize("hosts", [CORES, CARDS], ids=["CPUs", "GPUs"])
@pytest.mark.parametrize("hours", [0.5, 8.0])
def test_all_runs_end_in_time_and_the_time_is_used(local_store: Store, hosts: list[Host], hours: float) -> None:
    budgets = [700_000, 1_400_000, 350_000] * 3  # with a phase 1 that is 2/3 of them
    specs = [spec(f"i{n}", Budget(steps=steps)) for n, steps in enumerate(budgets)]
    limited = limit_budgets(local_store, specs, hosts, seconds=hours * HOUR)
    assert limited.share < 1
    assert 0.95 * hours * HOUR < end(local_store, limited.specs, hosts) <= hours * HOUR + 1
    assert [each.budget.steps for each in limited.specs] == budgets
    given = [each.budget.hours or 0.0 for each in limited.specs]
    assert given[1] == pytest.approx(2 * given[0], rel=0.01)
    assert given[2] == pytest.approx(given[0] / 2, rel=0.01)


def test_with_more_time_than_needed_steps_may_take_longer_and_hours_stay(local_store: Store) -> None:
    specs = [spec("steps", Budget(steps=1000)), spec("hours", Budget(hours=0.5))]
    limited = limit_budgets(local_store, specs, CARDS, seconds=4 * HOUR)
    assert limited.share > 1
    steps, hours = (each.budget for each in limited.specs)
    assert (steps.steps, hours) == (1000, Budget(hours=0.5))
    assert steps.hours == pytest.approx(4 - AROUND / HOUR, rel=0.01)


def test_hours_are_cut_in_proportion(local_store: Store) -> None:
    specs = [spec(name, Budget(hours=hours)) for name, hours in (("a", 4), ("b", 2), ("c", 2))]
    limited = limit_budgets(local_store, specs, [Host("a", cpus=2.0)], seconds=2 * HOUR, most=1)
    a, b, c = (each.budget.hours or 0.0 for each in limited.specs)
    assert a + b + c == pytest.approx(2 - 3 * AROUND / HOUR, abs=0.01)
    assert (b, c) == (pytest.approx(a / 2, abs=0.001), pytest.approx(a / 2, abs=0.001))


def test_what_is_done_counts(local_store: Store) -> None:
    """A complete run gets no time; one that was stopped gets what it has used and its part of the rest."""
    complete, stopped = spec("complete", Budget(hours=1)), spec("stopped", Budget(hours=3))
    for each, step, seconds in ((complete, 9, HOUR), (stopped, 5, HOUR)):
        each.save(local_store, each.folder.spec)
        local_store.write_bytes(f"{each.folder.checkpoints}/step-{step:09d}.pt", b"weights")
        CheckpointInfo(step=step, sha256="0" * 64, bytes=7).save(local_store, f"{each.folder.checkpoints}/step-{step:09d}.json")
        steps = {"step": step, "best_step": step, "steps": step, "phase_1_steps": 4}
        result = RunResult(phase=2, **steps, complete=each is complete, validation=Validation(), seconds=seconds)
        result.save(local_store, each.folder.result)
        write_record(local_store, run_record(instrument=each.instrument, run_id=each.run_id, step=step, seconds=seconds))
    limited = limit_budgets(local_store, [complete, stopped], [Host("a", cpus=2.0)], seconds=1.5 * HOUR, most=1)
    assert limited.specs[0] == complete
    assert limited.specs[1].budget.hours == pytest.approx(1 + 1.5 - AROUND / HOUR, abs=0.01)
    planned = plan_continuation(local_store, limited.specs[1])
    assert planned.spec.continues is not None


def test_a_deadline_that_leaves_no_time_is_refused(local_store: Store) -> None:
    specs = [spec(f"i{n}", Budget(hours=1)) for n in range(4)]
    with pytest.raises(ConfigurationError, match="starting and publishing") as caught:
        limit_budgets(local_store, specs, [Host("a", cpus=1.0)], seconds=300)
    assert (caught.value.where, "--only" in caught.value.fix) == ("--deadline", True)
