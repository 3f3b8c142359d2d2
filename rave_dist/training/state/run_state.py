"""Where a run stands between two steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from rave_dist.records import Validation
from rave_dist.training.schedule import Schedule, StepTimes


@dataclass(frozen=True)
class Best:
    """The best weights of a phase: after how many steps of the run, and how far from held-out audio they are."""

    step: int
    distance: float


@dataclass
class RunState:
    """What a run holds between two steps beside model, optimizers, sampler and random generators; all of it is in its
    checkpoints. ``step`` counts the steps done; ``seconds`` is training time, over all its processes; ``bests`` has the best
    weights of each phase that has some. ``waited`` counts the validations since the last that brought the distance below
    ``mark`` by as much as was asked; ``settled`` says that training has ended for that. ``setbacks`` are
    `rave_dist.records.Setback` as JSON. Every step is computed in ``accumulation_steps`` parts."""

    schedule: Schedule
    step: int = 0
    seconds: float = 0.0
    step_times: StepTimes | None = None
    first: float | None = None
    bests: dict[int, Best] = field(default_factory=dict)
    mark: float = math.inf
    waited: int = 0
    settled: bool = False
    setbacks: list[dict[str, Any]] = field(default_factory=list)
    last: float | None = None
    validated_step: int = -1
    train_distance: float | None = None
    accumulation_steps: int = 1

    @property
    def phase(self) -> int:
        """The phase of the last step done."""
        return self.schedule.phase(max(0, self.step - 1))

    @property
    def best(self) -> Best | None:
        """The weights that an export now would take."""
        return self.bests.get(self.phase)

    @property
    def validation(self) -> Validation:
        """The held-out distances; the best is that of the weights that an export now would take."""
        return Validation(first=self.first, best=self.best.distance if self.best else None, last=self.last)

    def note(self, distance: float, *, improvement: float = 0.0) -> bool:
        """Keeps a held-out distance; returns whether the weights of now are those that an export would take.

        They are if they are the first of their phase, if those held so far are not ripe (`Schedule.is_ripe`), or if they are
        closer. So a model of phase 2 is exported once there is one, and never one that the discriminator has hardly touched.

        Args:
            distance: of the weights of now.
            improvement: the share by which a distance must fall to count as lower for patience.
        """
        self.last, self.validated_step = distance, self.step
        if self.first is None:
            self.first = distance
            return False
        held = self.best
        fresh = held is None or not self.schedule.is_ripe(held.step)
        if fresh or distance < (1 - improvement) * self.mark:
            self.mark, self.waited = distance, 0
        else:
            self.waited += 1
        if not fresh and held is not None and distance >= held.distance:
            return False
        self.bests = {**self.bests, self.phase: Best(self.step, distance)}
        return True

    @staticmethod
    def from_saved(saved: Mapping[str, Any]) -> RunState:
        """The state that ``dataclasses.asdict`` was taken of."""
        step_times, bests = saved["step_times"], saved.get("bests", {})
        if best := _only_best(saved):
            bests = {best["phase"]: {"step": best["step"], "distance": best["distance"]}}
        made = {
            "schedule": Schedule(**saved["schedule"]),
            "step_times": StepTimes(**step_times) if step_times else None,
            "bests": {phase: Best(**best) for phase, best in bests.items()},
        }
        return RunState(**{**{name: value for name, value in saved.items() if name != "best"}, **made})


def best_weights(saved: Mapping[str, Any]) -> dict[int, dict[str, torch.Tensor]]:
    """The best weights of each phase that a checkpoint holds."""
    if "bests" in saved:
        return dict(saved["bests"])
    best = _only_best(saved["state"])
    return {best["phase"]: saved["best"]} if best else {}


def _only_best(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """What checkpoints held when they kept the best weights of one phase only; earlier still it was no more than distances."""
    best = state.get("best")
    return best if best and "distance" in best else None
