"""Runs that continue an earlier run of the same settings with another budget.

The budget is part of a run's identity. A run that differs from an earlier one only in its budget, of which that one has used
less, starts from the last checkpoint of that one: phase 1 stays as trained, or is replanned if it was not finished, and phase
2 is extended. The earlier run stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rave_dist.options import Budget
from rave_dist.records import Continuation, RunFolder, RunMetrics, RunResult, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.schedule import STEPS_AT_MOST, Schedule, StepTimes, extended_schedule


@dataclass(frozen=True)
class EarlierRun:
    """A run in the store: its last checkpoint, if it has one, and its result, if it ended or was stopped."""

    spec: TrainingSpec
    checkpoint: int | None
    result: RunResult | None

    @property
    def step(self) -> int:
        """Finished steps, as far as they are in the store."""
        return max(self.checkpoint or 0, self.result.step if self.result else 0)

    @property
    def is_complete(self) -> bool:
        """Whether its budget is used up."""
        return self.result is not None and self.result.complete


@dataclass(frozen=True)
class PlannedRun:
    """A run to train: its parameters, the run that it continues, if any, and what to tell users of earlier runs.

    ``last`` is the run whose steps count: the one that it continues, or itself if it is in the store.
    """

    spec: TrainingSpec
    earlier: EarlierRun | None = None
    note: str = ""
    last: EarlierRun | None = None


def plan_continuation(store: Store, spec: TrainingSpec) -> PlannedRun:
    """The run of a manifest, in view of the earlier runs of its instrument.

    Args:
        store: of the runs.
        spec: the run from the manifest.

    Returns:
        A run of the same parameters, if there is one with a checkpoint or a result; otherwise one that continues the run of the
        same settings with the most steps within the budget; otherwise ``spec``, with the reason if there are earlier runs.
    """
    runs = [run for run in _runs(store, spec) if run.step]
    related = [run for run in runs if run.spec.settings_id == spec.settings_id]
    same = [run for run in related if run.spec.budget == spec.budget or has_reached(run.spec, spec, run.step)]
    if same:
        run = max(same, key=lambda run: (run.is_complete, run.step))
        return PlannedRun(run.spec.model_copy(update=_unhashed(spec)), last=run)
    within = [run for run in related if run.checkpoint and _has_room(spec.budget, run)]
    if within:
        run = max(within, key=lambda run: (run.checkpoint, run.is_complete))
        assert run.checkpoint is not None
        continues = Continuation(run_id=run.spec.run_id, step=run.checkpoint)
        note = f"continues the run of {run.checkpoint:,} steps"
        return PlannedRun(spec.model_copy(update={"continues": continues}), run, note, last=run)
    return PlannedRun(spec, note=_reason(spec, runs, related))


def has_reached(run: TrainingSpec, spec: TrainingSpec, step: int) -> bool:
    """Whether a run that was also limited in time (for a deadline, say) did all steps of another one: it is the same."""
    one, other = run.budget, spec.budget
    return (one.steps, one.until) == (other.steps, other.until) and one.hours is not None and step == other.steps


def continued_schedule(store: Store, run: EarlierRun, spec: TrainingSpec, *, step_times: StepTimes) -> Schedule:
    """The schedule of a run that continues an earlier one.

    Args:
        store: of the runs.
        run: the earlier run.
        spec: the run that continues it.
        step_times: measured seconds per step.
    """
    metrics = RunMetrics.load(store, run.spec.folder.metrics)  # written before its first checkpoint
    return extended_schedule(
        Schedule(metrics.steps, metrics.phase_1_steps, 1, 1),
        spec.budget,
        step_times=step_times,
        override=spec.override,
        done=run.step,
        seconds=run.result.seconds if run.result else 0.0,
    )


def _runs(store: Store, planned: TrainingSpec) -> Iterator[EarlierRun]:
    keys = {entry.key for entry in store.list(f"runs/{planned.library}/{planned.instrument}")}
    for key in sorted(keys):
        folder = RunFolder(key.rpartition("/")[0])
        spec = TrainingSpec.find(store, key) if key == folder.spec else None
        if spec is not None:  # otherwise a crash cut it, and its run writes it again
            checkpoints = folder.checkpoint_steps(keys)
            yield EarlierRun(spec, max(checkpoints, default=None), RunResult.find(store, folder.result))


def _unhashed(spec: TrainingSpec) -> dict[str, object]:
    """The fields that are not part of a run's identity."""
    return {name: getattr(spec, name) for name in TrainingSpec.NOT_IDENTITY}


def _has_room(budget: Budget, run: EarlierRun) -> bool:
    """Whether a budget is larger than what a run has used."""
    has_time = budget.hours is None or 3600 * budget.hours > (run.result.seconds if run.result else 0.0)
    steps = math.inf if budget.hours is not None else STEPS_AT_MOST
    return has_time and (budget.steps or steps) > run.step


def _reason(spec: TrainingSpec, runs: list[EarlierRun], related: list[EarlierRun]) -> str:
    """Why a run starts at step 0 although there are earlier ones."""
    if not runs:
        return ""
    last = max(related or runs, key=lambda run: run.step)
    if not related:
        changed = ", ".join(last.spec.changes(spec))
        return f"starts at step 0: other settings than the run of {last.step:,} steps ({changed})"
    if not last.checkpoint:
        return f"starts at step 0: the run of {last.step:,} steps has no checkpoint any more"
    return f"starts at step 0: the run of {last.step:,} steps has used this budget already"
