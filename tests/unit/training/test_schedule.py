from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.options import Budget, Until
from rave_dist.training.schedule import (
    PHASE_1_MOST,
    PHASE_1_SHARE,
    STEPS_AT_MOST,
    Schedule,
    StepTimes,
    continue_schedule,
    end_phase_1,
    plan_schedule,
)


@given(steps=st.integers(2, 100_000_000))
def test_every_budget_of_steps_is_spent_and_has_both_phases(steps: int) -> None:
    schedule = plan_schedule(Budget(steps=steps))
    assert schedule.steps == steps
    assert 1 <= schedule.phase_1_steps <= min(steps - 1, PHASE_1_MOST)
    assert 1 <= schedule.warmup_steps <= schedule.phase_1_steps
    assert schedule.phase(0) == 1
    assert schedule.phase(schedule.phase_1_steps - 1) == 1
    assert schedule.phase(schedule.phase_1_steps) == 2
    assert schedule.phase(steps - 1) == 2


def test_stock_v2_is_scaled_stock() -> None:
    schedule = plan_schedule(Budget(steps=3_000_000))
    assert (schedule.phase_1_steps, schedule.warmup_steps, schedule.validate_every) == (1_000_000, 20_000, 10_000)
    small = plan_schedule(Budget(steps=300))
    assert (small.phase_1_steps, small.warmup_steps) == (200, 4)


@given(
    hours=st.floats(0.05, 1000),
    a=st.floats(0.01, 1.0),
    ratio=st.floats(0.3, 4),
)
def test_hours_are_spent_whatever_the_machine(hours: float, a: float, ratio: float) -> None:
    schedule = plan_schedule(Budget(hours=hours), step_times=StepTimes(a, a * ratio))
    spent = schedule.phase_1_steps * a + (schedule.steps - schedule.phase_1_steps) * a * ratio
    assert spent == pytest.approx(3600 * hours, abs=2 * a * (1 + ratio))
    share = schedule.phase_1_steps / schedule.steps
    assert share == pytest.approx(PHASE_1_SHARE, abs=0.01) or schedule.phase_1_steps == PHASE_1_MOST


def test_a_machine_that_slows_down_moves_the_boundary_and_keeps_the_hours() -> None:
    budget = Budget(hours=1)
    first = plan_schedule(budget, step_times=StepTimes(0.5, 1.0))
    slower = StepTimes(0.5, 1.0).scaled(1.0)
    assert slower == StepTimes(1.0, 2.0)
    later = plan_schedule(budget, step_times=slower, done=1000, seconds=1000.0)
    assert later.steps < first.steps
    spent = 1000 + (later.phase_1_steps - 1000) * 1.0 + (later.steps - later.phase_1_steps) * 2.0
    assert spent == pytest.approx(3600, abs=4)


def test_phase_1_never_ends_in_the_past_and_phase_2_always_follows() -> None:
    schedule = plan_schedule(Budget(hours=0.1), step_times=StepTimes(1.0, 1.0), done=500, seconds=400.0)
    assert schedule.phase_1_steps >= 500 or schedule.steps == 501
    assert schedule.phase_1_steps < schedule.steps


@given(
    a=st.floats(0.01, 10),
    ratio=st.floats(0.3, 4),
    spent=st.floats(0, 0.999),
    done=st.integers(1, 400_000),
)
def test_the_discriminator_keeps_its_share_however_slow_phase_1_turns_out(
    a: float, ratio: float, spent: float, done: int
) -> None:
    schedule = plan_schedule(Budget(hours=10), step_times=StepTimes(a, a * ratio), done=done, seconds=36_000 * spent)
    assert schedule.phase_1_steps >= done
    if schedule.phase_1_steps > done:  # else phase 2 begins now and has all the time that is left
        assert schedule.steps - schedule.phase_1_steps >= (1 - PHASE_1_SHARE) * schedule.steps - 1


def test_in_phase_2_only_the_end_moves() -> None:
    first = plan_schedule(Budget(hours=1), step_times=StepTimes(1.0, 1.0))
    moved = continue_schedule(first, Budget(hours=1), pace_phase_2=2.0, done=3000, seconds=3000.0)
    assert moved.phase_1_steps == first.phase_1_steps
    assert moved.steps == 3000 + 300


@given(hours=st.floats(0.01, 20), steps=st.integers(2, 200_000), ratio=st.floats(0.3, 4))
def test_of_hours_and_steps_the_first_to_be_used_up_counts(hours: float, steps: int, ratio: float) -> None:
    times = StepTimes(0.1, 0.1 * ratio)
    by_time, by_steps = plan_schedule(Budget(hours=hours), step_times=times), plan_schedule(Budget(steps=steps))
    both = plan_schedule(Budget(hours=hours, steps=steps), step_times=times)
    assert both == (by_steps if by_steps.steps < by_time.steps else by_time)
    done = min(both.phase_1_steps, both.steps - 1)
    moved = continue_schedule(both, Budget(hours=hours, steps=steps), pace_phase_2=1e-6, done=done, seconds=0.0)
    assert moved.steps == max(steps, both.phase_1_steps + 1)


def test_the_time_of_a_schedule_is_that_of_its_steps() -> None:
    schedule = plan_schedule(Budget(steps=300))
    times = StepTimes(1.0, 10.0)
    assert schedule.phase_1_steps == 200
    assert [schedule.seconds(times, done=done) for done in (0, 150, 250, 300)] == [1200.0, 1050.0, 500.0, 0.0]


def test_overrides_are_taken_at_their_word() -> None:
    override = {"PHASE_1_DURATION": 50, "rave.BetaWarmupCallback.warmup_len": 7}
    schedule = plan_schedule(Budget(steps=300), override=override)
    assert (schedule.phase_1_steps, schedule.warmup_steps) == (50, 7)
    assert plan_schedule(Budget(steps=40), override=override).phase_1_steps == 39
    hours = plan_schedule(Budget(hours=1), step_times=StepTimes(1.0, 2.0), override=override)
    assert hours.phase_1_steps == 50
    assert hours.steps == 50 + (3600 - 50) // 2


def test_until_is_planned_as_the_longest_that_it_may_take() -> None:
    until = Until(patience=5)
    alone = plan_schedule(Budget(until=until))
    assert (alone.steps, alone.phase_1_steps, alone.warmup_steps) == (STEPS_AT_MOST, PHASE_1_MOST, 20_000)
    assert plan_schedule(Budget(until=until, steps=300)) == plan_schedule(Budget(steps=300))
    step_times = StepTimes(0.1, 0.2)
    assert plan_schedule(Budget(until=until, hours=1), step_times=step_times) == plan_schedule(
        Budget(hours=1), step_times=step_times
    )


@given(steps=st.integers(2, 10_000), data=st.data())
def test_phase_1_can_end_early_and_phase_2_always_follows(steps: int, data: st.DataObject) -> None:
    planned = plan_schedule(Budget(steps=steps))
    done = data.draw(st.integers(1, planned.phase_1_steps))
    schedule = end_phase_1(planned, done=done)
    assert (schedule.phase(done - 1), schedule.phase(done)) == (1, 2)
    assert schedule.steps == steps


@given(phase_1=st.integers(1, 2_000_000))
def test_no_weights_are_the_best_of_phase_2_before_the_discriminator_had_a_quarter_of_phase_1(phase_1: int) -> None:
    schedule = Schedule(steps=2 * phase_1, phase_1_steps=phase_1, warmup_steps=1, validate_every=1)
    assert schedule.is_selectable(phase_1)
    first = next(beyond for beyond in (phase_1 // 4, phase_1 // 4 + 1) if beyond and schedule.is_selectable(phase_1 + beyond))
    assert first >= phase_1 / 4
    assert first == 1 or not schedule.is_selectable(phase_1 + first - 1)


def test_hours_need_a_pace() -> None:
    with pytest.raises(ValueError, match="measured"):
        plan_schedule(Budget(hours=1))
