from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from rave_dist.options import Budget, Until
from rave_dist.time_left import TimeLeft, duration, library_time_left, spent, time_left, used
from tests.sample_records import run_record

run = partial(run_record, state="running", activity="training")


STEPS = Budget(steps=1000)
PATIENT = Budget(steps=1000, until=Until(patience=3))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (40.4, "40 s"), (90, "2 min"), (900, "15 min"), (12_000, "3 h 20 min"), (10_800, "3 h"), (190_000, "53 h")],
)
def test_a_duration_has_the_precision_of_an_estimate(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"budget": STEPS, "steps": 1000, "step": 400, "phase": 2, "steps_per_second": 4.0}, TimeLeft(150)),
        ({"budget": STEPS, "steps": 1000, "step": 400, "phase": 1, "steps_per_second": 4.0}, TimeLeft(150, "at least")),
        ({"budget": STEPS, "steps": 1000, "step": 400, "phase": 2}, None),
        ({"budget": STEPS, "steps_per_second": 4.0}, None),
        ({"budget": PATIENT, "steps": 1000, "step": 400, "phase": 1, "steps_per_second": 4.0}, None),
        ({"budget": PATIENT, "steps": 1000, "step": 400, "phase": 2, "steps_per_second": 4.0}, TimeLeft(150, "at most")),
        ({"budget": Budget(hours=1), "seconds": 600.0}, TimeLeft(3000)),
        ({"budget": Budget(hours=1), "seconds": 4000.0}, TimeLeft(0)),
        ({"budget": Budget(hours=1, until=Until(patience=3)), "seconds": 600.0}, TimeLeft(3000, "at most")),
    ],
)
def test_a_run_takes_what_is_left_of_its_budget_at_its_pace(fields: dict[str, Any], left: TimeLeft | None) -> None:
    assert time_left(run(**fields)) == left


def test_the_share_used_is_of_the_budget() -> None:
    assert used(run(budget=STEPS, steps=1000, step=250)) == 0.25
    assert used(run(budget=Budget(hours=1), seconds=900.0, steps=7, step=7)) == 0.25
    assert used(run()) is None


def test_a_share_of_a_card_costs_that_share() -> None:
    """A GPU's hours are shared by its runs; its cores are not counted."""
    records = [
        run_record(seconds=7200.0, gpu_share=0.25, threads=1),
        run_record(seconds=3600.0, gpu_share=1.0, threads=2),
        run_record(seconds=1800.0, threads=4),
        run_record(),
    ]
    assert spent(records) == {"gpu_hours": 1.5, "core_hours": 2.0}
    assert spent(records, 2.5) == {"gpu_hours": 1.5, "core_hours": 2.0, "cost": 3.75}


def test_of_two_limits_the_first_to_be_reached_counts() -> None:
    budget = Budget(hours=1, steps=100)
    assert used(run_record(budget=budget, step=20, steps=100, seconds=1800.0)) == 0.5
    assert used(run_record(budget=budget, step=90, steps=100, seconds=1800.0)) == 0.9
    assert time_left(run_record(budget=budget, step=20, steps=40, seconds=1800.0)) == TimeLeft(1800.0, "at most")


def test_runs_that_wait_take_the_places_of_those_that_end() -> None:
    training = [run(budget=Budget(hours=1), seconds=1800.0), run(budget=Budget(hours=1), seconds=600.0)]
    waiting = [run(budget=Budget(hours=1), state="waiting", activity="waiting") for _ in range(3)]
    ended = [run(state="done", activity=None), run(state="failed", activity=None), run(activity="exporting")]
    # Places free at 30 and 50 minutes; of the three hours, two follow one another from the first.
    assert library_time_left([*ended, *training, *waiting]) == TimeLeft(1800 + 2 * 3600)
    assert library_time_left([*ended, *training]) == TimeLeft(3000)
    assert library_time_left(ended) is None
    assert library_time_left(waiting) is None, "nothing trains yet: who knows when there will be room"


def test_a_run_that_waits_is_assumed_to_keep_the_pace_of_the_others() -> None:
    training = run(budget=STEPS, steps=1000, step=600, phase=2, steps_per_second=2.0)
    waiting = run(budget=STEPS, steps=1000, state="waiting", activity="waiting")
    assert library_time_left([training, waiting]) == TimeLeft(200 + 500, "at least")


def test_what_is_not_known_of_one_is_not_said_of_all() -> None:
    known = run(budget=Budget(hours=1))
    assert library_time_left([known, run(budget=STEPS, steps=1000, phase=2)]) is None
    young = run(budget=STEPS, steps=1000, steps_per_second=2.0)
    patient = run(budget=Budget(hours=1, until=Until(patience=3)))
    assert library_time_left([young, patient]) is None, "at least, and at most"
