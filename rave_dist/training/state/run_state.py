"""The progress of a run between two steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rave_dist.records import BestWeights, Rollback, Validation
from rave_dist.training.schedule import Schedule, StepTimes


@dataclass
class RunState:
    """The progress of a run between two steps, a part of its checkpoints.

    Model, optimizers, sampler and random generators have separate states.

    Attributes:
        schedule: the present schedule.
        step: number of finished steps.
        seconds: training time, summed over all processes of the run.
        step_times: measured seconds per step, for budgets in hours.
        first: the held-out distance before the first step.
        bests: the best weights of each phase so far.
        patience_distance: the held-out distance that the next one must improve on by the budget's ``improvement``.
        validations_without_improvement: validations since the last improvement.
        ended_early: whether training has ended because validation no longer improved.
        rollbacks: returns to an earlier checkpoint, the oldest first.
        last: the last held-out distance.
        validated_step: the step of the last validation.
        train_distance: the spectral distance of a recent training batch.
        accumulation_steps: equal parts of the batch whose gradients are added up in a step.
    """

    schedule: Schedule
    step: int = 0
    seconds: float = 0.0
    step_times: StepTimes | None = None
    first: float | None = None
    bests: dict[int, BestWeights] = field(default_factory=dict)
    patience_distance: float = math.inf
    validations_without_improvement: int = 0
    ended_early: bool = False
    rollbacks: list[Rollback] = field(default_factory=list)
    last: float | None = None
    validated_step: int = -1
    train_distance: float | None = None
    accumulation_steps: int = 1

    @property
    def phase(self) -> int:
        """The phase of the last finished step."""
        return self.schedule.phase(max(0, self.step - 1))

    @property
    def best(self) -> BestWeights | None:
        """The weights to export at present."""
        return self.bests.get(self.phase)

    @property
    def validation(self) -> Validation:
        """The held-out distances; the best one is that of the weights to export at present."""
        return Validation(first=self.first, best=self.best.distance if self.best else None, last=self.last)

    def record_validation(self, distance: float, *, improvement: float = 0.0) -> bool:
        """Records a held-out distance; returns whether the current weights are the best of their phase.

        They are if they are the first of their phase, if the best so far are too early in phase 2 (`Schedule.is_selectable`),
        or if their distance is lower. So a model of phase 2 is exported as soon as there is one, and one that has hardly been
        trained with the discriminator only while there is no other.

        Args:
            distance: of the current weights.
            improvement: relative decrease that counts as an improvement.
        """
        self.last, self.validated_step = distance, self.step
        if self.first is None:
            self.first = distance
            return False
        held = self.best
        fresh = held is None or not self.schedule.is_selectable(held.step)
        if fresh or distance < (1 - improvement) * self.patience_distance:
            self.patience_distance, self.validations_without_improvement = distance, 0
        else:
            self.validations_without_improvement += 1
        if not fresh and held is not None and distance >= held.distance:
            return False
        self.bests = {**self.bests, self.phase: BestWeights(step=self.step, distance=distance)}
        return True

    def to_saved(self) -> dict[str, Any]:
        """All fields as values for a checkpoint."""
        return {
            **asdict(self),
            "bests": {phase: best.to_json() for phase, best in self.bests.items()},
            "rollbacks": [rollback.to_json() for rollback in self.rollbacks],
        }

    @staticmethod
    def from_saved(saved: Mapping[str, Any]) -> RunState:
        """The state from the result of `to_saved`."""
        step_times = saved["step_times"]
        made = {
            "schedule": Schedule(**saved["schedule"]),
            "step_times": StepTimes(**step_times) if step_times else None,
            "bests": {phase: BestWeights(**best) for phase, best in saved["bests"].items()},
            "rollbacks": [Rollback(**rollback) for rollback in saved["rollbacks"]],
        }
        return RunState(**{**saved, **made})
