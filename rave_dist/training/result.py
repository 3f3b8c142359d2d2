"""Where a run stands, and what it leaves at its end."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rave_dist.errors import MissingKeyError
from rave_dist.records import TrainingSpec, Validation
from rave_dist.storage import Store
from rave_dist.training.schedule import Pace, Schedule


@dataclass(frozen=True)
class Best:
    """The best weights of a phase: after how many steps of the run, and how far from held-out audio they are."""

    step: int
    distance: float


@dataclass
class State:
    """What a run holds between two steps beside model, optimizers, sampler and random generators; all of it is in its
    checkpoints. ``step`` counts the steps done; ``seconds`` is training time, over all its processes; ``bests`` has the best
    weights of each phase that has some. ``waited`` counts the validations since the last that brought the distance below
    ``mark`` by as much as was asked; ``settled`` says that training has ended for that. ``setbacks`` are
    `rave_dist.records.Setback` as JSON."""

    schedule: Schedule
    step: int = 0
    seconds: float = 0.0
    pace: Pace | None = None
    first: float | None = None
    bests: dict[int, Best] = field(default_factory=dict)
    mark: float = math.inf
    waited: int = 0
    settled: bool = False
    setbacks: list[dict[str, Any]] = field(default_factory=list)
    last: float | None = None
    validated_step: int = -1
    train_distance: float | None = None

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
    def from_saved(saved: Mapping[str, Any]) -> State:
        """The state that ``dataclasses.asdict`` was taken of."""
        pace, bests = saved["pace"], saved.get("bests", {})
        if best := _only_best(saved):
            bests = {best["phase"]: {"step": best["step"], "distance": best["distance"]}}
        made = {
            "schedule": Schedule(**saved["schedule"]),
            "pace": Pace(**pace) if pace else None,
            "bests": {phase: Best(**best) for phase, best in bests.items()},
        }
        return State(**{**{name: value for name, value in saved.items() if name != "best"}, **made})


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


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Writes a model's weights as a run folder has them: its ``state_dict``, on the CPU."""
    torch.save({name: value.detach().cpu() for name, value in model.state_dict().items()}, path)


def write_weights(store: Store, spec: TrainingSpec, model: torch.nn.Module, file: str) -> None:
    """Writes a model, its latent axes and receptive field set, into the run's folder.

    Raises:
        StoreError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="rave-dist-weights-") as folder:
        path = Path(folder) / file
        save_weights(model, path)
        store.upload(path, f"{spec.run_key}/{file}")


def write_result(store: Store, spec: TrainingSpec, state: State, *, complete: bool) -> None:
    """Writes ``result.json``, which says that all of the run's files are there.

    ``phase_1`` in it is the best of phase 1, whose weights are in ``weights_phase_1.pt``; null for runs that end there, whose
    best is in ``weights.pt``, and for runs that began after it.

    Args:
        store: where to.
        spec: the run.
        state: where the run stands.
        complete: whether its budget is spent.

    Raises:
        StoreError: it cannot be written.
    """
    distances = state.validation.to_json()
    phase_1 = state.bests.get(1) if state.phase == 2 else None
    result = {
        "phase": state.phase,
        "step": state.step,
        "best_step": state.best.step if state.best else state.step,
        "steps": state.schedule.steps,
        "phase_1_steps": state.schedule.phase_1_steps,
        "phase_1": asdict(phase_1) if phase_1 else None,
        "complete": complete,
        "metrics": {f"validation_{name}": value for name, value in distances.items() if value is not None},
        "setbacks": state.setbacks,
        "seconds": state.seconds,
    }
    store.write_json(_result_key(spec), result)


def read_result(store: Store, spec: TrainingSpec) -> dict[str, Any] | None:
    """What a run ended with, or None where it never ended; ``complete`` in it says whether its budget was spent."""
    try:
        result: dict[str, Any] = store.read_json(_result_key(spec))
    except MissingKeyError:
        return None
    return result


def _result_key(spec: TrainingSpec) -> str:
    return f"{spec.run_key}/result.json"
