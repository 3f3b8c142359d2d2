"""Converts a budget to a schedule: total steps, end of phase 1, warm-up of the KL term, validations.

RAVE learns its representation in phase 1 and freezes it in phase 2, where a discriminator sharpens the sound. The
representation cannot improve later, so small budgets need most of their steps in phase 1. Stock RAVE v2 always uses one
million steps for it. With ``N`` steps in total and a share ``s`` of them,

    phase_1 = min(s N, 1,000,000)        1 <= phase_1 <= N - 1

With a budget of ``H`` seconds, measured seconds ``a`` and ``b`` of a step of phases 1 and 2, and ``n`` steps (all in phase 1)
finished in ``t`` seconds, the total number of steps solves, up to the steps of a budget that has both,

    t + (phase_1(N) - n) a + (N - phase_1(N)) b = H
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rave_dist.errors import ConfigurationError
from rave_dist.options import Budget

PHASE_1_SHARE = 2 / 3
"""Share of the steps for phase 1; a step of phase 2 takes up to three times as long, so the phases take about equal time."""

PHASE_1_MOST = 1_000_000
"""End of phase 1 in the stock configurations."""

STEPS_AT_MOST = 1_500_000
"""Upper limit of the steps with early stopping alone: phase 1 has its stock length, phase 2 its share."""

WARMUP_SHARE = 0.02
"""Share of phase 1 with a rising KL weight: 20,000 of 1,000,000 steps in stock v2, the only configuration with a warm-up."""

DISCRIMINATOR_LEAST = 1 / 4
"""Minimum steps of phase 2, as a share of those of phase 1, before its weights can be the best and patience can end it.

For a budget divided two to one this is half of phase 2.
"""

VALIDATIONS = 20
VALIDATE_AT_LEAST_EVERY = 10_000
VALIDATE_AT_MOST_EVERY = 10


@dataclass(frozen=True)
class Schedule:
    """All numbers are steps; steps ``0 .. phase_1_steps - 1`` are phase 1, the rest up to ``steps - 1`` phase 2."""

    steps: int
    phase_1_steps: int
    warmup_steps: int
    validate_every: int

    def phase(self, step: int) -> int:
        """The phase that a step belongs to: 1 or 2."""
        return 1 if step < self.phase_1_steps else 2

    def seconds(self, times: StepTimes, *, done: int = 0) -> float:
        """The time of all steps after the first ``done``."""
        in_phase_1 = max(0, self.phase_1_steps - done)
        return in_phase_1 * times.phase_1 + max(0, self.steps - done - in_phase_1) * times.phase_2

    def is_selectable(self, step: int) -> bool:
        """Whether weights after ``step`` steps can be the best of their phase.

        In phase 1 always; in phase 2, where the spectral distance rises as the sound sharpens, after `DISCRIMINATOR_LEAST`.
        """
        beyond = step - self.phase_1_steps
        return beyond <= 0 or beyond >= DISCRIMINATOR_LEAST * self.phase_1_steps


@dataclass(frozen=True)
class StepTimes:
    """Seconds that a step of each phase takes on this machine."""

    phase_1: float
    phase_2: float

    def scaled(self, measured_phase_1: float) -> StepTimes:
        """The times scaled to the actual speed of phase 1; both phases are assumed to slow down alike."""
        return StepTimes(measured_phase_1, self.phase_2 * measured_phase_1 / self.phase_1)


@dataclass(frozen=True)
class ResumePoint:
    """A stock RAVE run to resume: its finished steps, and its schedule as far as it is known."""

    origin: str
    step: int
    phase_1_steps: int | None
    warmup_steps: int | None


def first_schedule(
    budget: Budget, *, step_times: StepTimes | None, override: Mapping[str, Any], resume_point: ResumePoint | None
) -> Schedule:
    """The initial schedule of a run, new or resumed from a stock run.

    A run in phase 2 stays there, and the warm-up keeps its length. Arguments as in `plan_schedule`.

    Raises:
        ConfigurationError: the budget is already used up.
    """
    if resume_point is None:
        return plan_schedule(budget, step_times=step_times, override=override)
    if budget.steps is not None and budget.steps <= resume_point.step:
        raise ConfigurationError(
            f"a budget of {budget.steps} steps is used up: the run to resume has done {resume_point.step}",
            where=resume_point.origin,
            fix=f"budget: {{steps: {2 * resume_point.step}}}",
        )
    if resume_point.phase_1_steps is None or resume_point.step < resume_point.phase_1_steps:
        schedule = plan_schedule(budget, step_times=step_times, override=override, done=resume_point.step)
    else:
        if budget.hours is not None:
            assert step_times is not None
            by_time = resume_point.step + max(1, int(3600 * budget.hours / step_times.phase_2))
            budget = Budget(steps=min(by_time, budget.steps or by_time))
        schedule = replace(plan_schedule(budget), phase_1_steps=resume_point.phase_1_steps)
    return schedule if resume_point.warmup_steps is None else replace(schedule, warmup_steps=max(1, resume_point.warmup_steps))


def plan_schedule(
    budget: Budget,
    *,
    step_times: StepTimes | None = None,
    override: Mapping[str, Any] | None = None,
    done: int = 0,
    seconds: float = 0.0,
) -> Schedule:
    """The schedule of a budget.

    Args:
        budget: steps or hours; with early stopping, its upper limit.
        step_times: measured seconds per step; needed for hours, unused for steps.
        override: the run's gin overrides; ``PHASE_1_DURATION`` and ``…BetaWarmupCallback.warmup_len`` are used as given.
        done: finished steps; phase 1 never ends before them.
        seconds: training time so far.

    Raises:
        ValueError: hours without ``step_times``.
    """
    if budget.hours is None:
        return _divide(budget.steps or STEPS_AT_MOST, override or {}, done)
    if step_times is None:
        raise ValueError("a budget in hours needs measured step times")
    left = 3600.0 * budget.hours - seconds
    a, b = step_times.phase_1, step_times.phase_2
    # Solved for each of the two branches of phase_1(N); the smaller one applies, because phase_1 is the smaller of two.
    by_share = (left + done * a) / (PHASE_1_SHARE * a + (1 - PHASE_1_SHARE) * b)
    fixed = _stated_phase_1(override or {})
    most = PHASE_1_MOST if fixed is None else fixed
    by_most = most + (left - (most - done) * a) / b
    steps = by_most if fixed is not None or by_share * PHASE_1_SHARE > PHASE_1_MOST else by_share
    return _divide(max(int(min(steps, budget.steps or steps)), done + 1, 2), override or {}, done)


def continue_schedule(schedule: Schedule, budget: Budget, *, pace_phase_2: float, done: int, seconds: float) -> Schedule:
    """The schedule of a run in phase 2 with its end moved to the end of the hours.

    Args:
        schedule: the schedule so far.
        budget: the whole budget, with hours.
        pace_phase_2: present seconds per step.
        done: finished steps.
        seconds: training time so far.
    """
    assert budget.hours is not None
    by_time = done + int(max(0.0, 3600.0 * budget.hours - seconds) / pace_phase_2)
    steps = max(done + 1, schedule.phase_1_steps + 1, min(by_time, budget.steps or by_time))
    return Schedule(steps, schedule.phase_1_steps, schedule.warmup_steps, _validate_every(steps))


def extended_schedule(
    schedule: Schedule,
    budget: Budget,
    *,
    step_times: StepTimes | None,
    override: Mapping[str, Any],
    done: int,
    seconds: float,
) -> Schedule:
    """The schedule of a run that continues another one with another budget.

    A phase 1 that is finished stays as trained, and phase 2 ends with the budget; otherwise the rest is planned. The warm-up
    keeps its length. Arguments as in `plan_schedule`.

    Args:
        schedule: of the earlier run.
        budget: the whole budget, including what the earlier run has used.
        step_times: measured seconds per step; needed for hours, unused for steps.
        override: the run's gin overrides.
        done: finished steps.
        seconds: training time so far.
    """
    if schedule.phase(done) == 1:
        planned = plan_schedule(budget, step_times=step_times, override=override, done=done, seconds=seconds)
        return replace(planned, warmup_steps=schedule.warmup_steps)
    if budget.hours is not None:
        if step_times is None:
            raise ValueError("a budget in hours needs measured step times")
        return continue_schedule(schedule, budget, pace_phase_2=step_times.phase_2, done=done, seconds=seconds)
    steps = max(budget.steps or STEPS_AT_MOST, done)
    return replace(schedule, steps=steps, validate_every=_validate_every(steps))


def end_phase_1(schedule: Schedule, *, done: int) -> Schedule:
    """The schedule with phase 1 ended now; the end of phase 2 is unchanged."""
    return replace(schedule, phase_1_steps=done, steps=max(schedule.steps, done + 1))


def _divide(steps: int, override: Mapping[str, Any], done: int) -> Schedule:
    stated = _stated_phase_1(override)
    phase_1 = min(round(PHASE_1_SHARE * steps), PHASE_1_MOST) if stated is None else stated
    phase_1 = min(max(phase_1, done, 1), steps - 1)
    warmup = _stated(override, "BetaWarmupCallback.warmup_len")
    return Schedule(
        steps=steps,
        phase_1_steps=phase_1,
        warmup_steps=max(1, round(WARMUP_SHARE * phase_1)) if warmup is None else max(1, warmup),
        validate_every=_validate_every(steps),
    )


def _validate_every(steps: int) -> int:
    return min(max(-(-steps // VALIDATIONS), VALIDATE_AT_MOST_EVERY), VALIDATE_AT_LEAST_EVERY)


def _stated_phase_1(override: Mapping[str, Any]) -> int | None:
    stated = _stated(override, "PHASE_1_DURATION")
    return _stated(override, "RAVE.phase_1_duration") if stated is None else stated


def _stated(override: Mapping[str, Any], name: str) -> int | None:
    for key, value in override.items():
        if (key == name or key.endswith(f".{name}")) and isinstance(value, int):
            return value
    return None
