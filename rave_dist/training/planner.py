"""Ends the phases of a run: hours are adjusted to the speed of the machine, early stopping follows validation."""

from __future__ import annotations

from collections.abc import Callable

from rave_dist.records import TrainingSpec
from rave_dist.training.schedule import Schedule, continue_schedule, end_phase_1, plan_schedule
from rave_dist.training.state.run_state import RunState

_REPLANS = 50  # adjustments per budget


class Planner:
    """Adjusts the schedule of a run to its budget.

    Args:
        spec: the run.
        state: its state, with the schedule.
        reschedule: called with changed phases, as `rave_dist.training.step.training_step.TrainingStep.reschedule`.
    """

    def __init__(self, spec: TrainingSpec, state: RunState, reschedule: Callable[..., None]) -> None:
        self._spec, self._state, self._follow = spec, state, reschedule
        self._planned = (state.step, state.seconds)

    def budget_used_up(self) -> bool:
        """Whether training ends: by time (never before phase 2), by steps, or by early stopping."""
        budget, state = self._spec.budget, self._state
        if budget.hours is None or state.ended_early:
            return state.ended_early or state.step >= state.schedule.steps
        by_steps = budget.steps is not None and state.step >= budget.steps
        return state.phase == 2 and (by_steps or state.seconds >= 3600 * budget.hours)

    def apply_early_stopping(self) -> None:
        """Ends the phase if validation has not improved for the budget's patience."""
        until, state = self._spec.budget.until, self._state
        if until is None or state.validations_without_improvement < until.patience:
            return
        if state.phase == 2:
            state.ended_early = True
        elif state.step < state.schedule.phase_1_steps:
            self._reschedule(end_phase_1(state.schedule, done=state.step))
            if self._spec.budget.hours is not None and state.step_times is not None:
                self._move_end(state.step_times.phase_2)
                self._planned = (state.step, state.seconds)

    def follow_speed(self) -> bool:
        """Moves the ends of the phases of a budget in hours to the present speed.

        Returns:
            Whether this has ended phase 1 at the present step.
        """
        hours, state = self._spec.budget.hours, self._state
        steps, seconds = state.step - self._planned[0], state.seconds - self._planned[1]
        if hours is None or state.step_times is None or seconds < 3600 * hours / _REPLANS:
            return False
        measured, done = seconds / steps, state.step
        self._planned = (done, state.seconds)
        if state.schedule.phase(done) == 2:
            self._move_end(measured)
            return False
        state.step_times = state.step_times.scaled(measured)
        schedule = plan_schedule(
            self._spec.budget, step_times=state.step_times, override=self._spec.override, done=done, seconds=state.seconds
        )
        self._reschedule(schedule)
        return schedule.phase_1_steps == done

    def _reschedule(self, schedule: Schedule) -> None:
        self._state.schedule = schedule
        self._follow(phase_1_steps=schedule.phase_1_steps, warmup_steps=schedule.warmup_steps)

    def _move_end(self, step_seconds: float) -> None:
        state = self._state
        state.schedule = continue_schedule(
            state.schedule, self._spec.budget, pace_phase_2=step_seconds, done=state.step, seconds=state.seconds
        )
