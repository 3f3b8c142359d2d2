"""A budget becomes a schedule: how many steps, where phase 1 ends, how long the KL term warms up, when to validate.

RAVE learns its representation in phase 1 and freezes it in phase 2, where an adversary sharpens the sound. What phase 1
did not learn is lost for good, so small budgets need most of their steps there. Stock RAVE v2 spends one million steps
on it, whatever follows. With ``N`` steps in all and a share ``s`` of them,

    phase_1 = min(s N, 1,000,000)        1 <= phase_1 <= N - 1

With hours instead, and seconds ``a`` and ``b`` of a step of phases 1 and 2 as measured where the run runs, ``n`` steps done
(all in phase 1) in ``t`` seconds, the steps in all that spend ``H`` seconds solve

    t + (phase_1(N) - n) a + (N - phase_1(N)) b = H
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rave_dist.errors import ConfigurationError
from rave_dist.options import Budget

PHASE_1_SHARE = 2 / 3
"""Share of the steps for phase 1. A step of phase 2 takes up to three times as long, so the phases take about equal time."""

PHASE_1_MOST = 1_000_000
"""Where the stock configurations end phase 1."""

STEPS_AT_MOST = 1_500_000
"""Where training ends that only validation was to end: phase 1 has its stock length, phase 2 its share."""

WARMUP_SHARE = 0.02
"""Share of phase 1 over which the KL weight rises: 20,000 of 1,000,000 steps in stock v2, the one configuration in which it
does rise."""

DISCRIMINATOR_LEAST = 1 / 4
"""Steps of phase 2, as a share of those of phase 1, before which none of its weights are called the best and patience does not
end it: half of its steps where the phases divide a budget two to one."""

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

    def is_selectable(self, step: int) -> bool:
        """Whether weights after ``step`` steps may be preferred to later ones of their phase: in phase 1 always; in phase 2,
        where the spectral distance rises as the sound sharpens, once the discriminator has had `DISCRIMINATOR_LEAST`."""
        beyond = step - self.phase_1_steps
        return beyond <= 0 or beyond >= DISCRIMINATOR_LEAST * self.phase_1_steps


@dataclass(frozen=True)
class StepTimes:
    """Seconds that a step of each phase takes on this machine."""

    phase_1: float
    phase_2: float

    def scaled(self, measured_phase_1: float) -> StepTimes:
        """The step_times when phase 1 turns out to take another time than was measured: what slows one phase slows both."""
        return StepTimes(measured_phase_1, self.phase_2 * measured_phase_1 / self.phase_1)


@dataclass(frozen=True)
class ResumePoint:
    """A stock RAVE run that is resumed: steps done, and its schedule as far as it states one."""

    origin: str
    step: int
    phase_1_steps: int | None
    warmup_steps: int | None


def first_schedule(
    budget: Budget, *, step_times: StepTimes | None, override: Mapping[str, Any], resume_point: ResumePoint | None
) -> Schedule:
    """The schedule with which a run sets out: its own, or the rest of one that was begun.

    Phase 2 is not left again, and the warm-up keeps the length that the stock run gave it. Arguments as of `plan_schedule`.

    Raises:
        ConfigurationError: the budget is used up already.
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
            budget = Budget(steps=resume_point.step + max(1, int(3600 * budget.hours / step_times.phase_2)))
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
    """The schedule that spends a budget.

    Args:
        budget: steps, or hours; or until validation no longer improves, which is planned as the longest that it may take.
        step_times: measured seconds per step; needed for hours, unused for steps.
        override: the run's gin overrides; ``PHASE_1_DURATION`` and ``…BetaWarmupCallback.warmup_len`` are taken at their word.
        done: steps already done; phase 1 never ends before them.
        seconds: training time already spent.

    Raises:
        ValueError: hours without a step_times.
    """
    if budget.hours is None:
        return _divide(budget.steps or STEPS_AT_MOST, override or {}, done)
    if step_times is None:
        raise ValueError("a budget in hours needs measured step times")
    left = 3600.0 * budget.hours - seconds
    a, b = step_times.phase_1, step_times.phase_2
    # Solved for each of the two branches of phase_1(N); the smaller one holds, as phase_1 is the smaller of two.
    by_share = (left + done * a) / (PHASE_1_SHARE * a + (1 - PHASE_1_SHARE) * b)
    fixed = _stated_phase_1(override or {})
    most = PHASE_1_MOST if fixed is None else fixed
    by_most = most + (left - (most - done) * a) / b
    steps = by_most if fixed is not None or by_share * PHASE_1_SHARE > PHASE_1_MOST else by_share
    return _divide(max(int(steps), done + 1, 2), override or {}, done)


def continue_schedule(schedule: Schedule, *, pace_phase_2: float, done: int, seconds: float, hours: float) -> Schedule:
    """The schedule with its end moved to where the hours will be spent, once phase 2 has begun.

    Args:
        schedule: the schedule so far.
        pace_phase_2: seconds per step as they are now.
        done: steps done.
        seconds: training time already spent.
        hours: the whole budget.
    """
    left = max(0.0, 3600.0 * hours - seconds)
    steps = max(done + 1, schedule.phase_1_steps + 1, done + int(left / pace_phase_2))
    return Schedule(steps, schedule.phase_1_steps, schedule.warmup_steps, _validate_every(steps))


def end_phase_1(schedule: Schedule, *, done: int) -> Schedule:
    """The schedule with phase 1 ended now; the end of phase 2 stays where it was."""
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
