"""Where a run stands, and what it leaves at its end."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rave_dist.errors import MissingKeyError
from rave_dist.records import TrainingSpec, Validation
from rave_dist.storage import Store
from rave_dist.training.schedule import Pace, Schedule


@dataclass
class State:
    """What a run holds between two steps beside model, optimizers, sampler and random generators; all of it is in its
    checkpoints. ``step`` counts the steps done; ``seconds`` is training time, over all its processes."""

    schedule: Schedule
    step: int = 0
    seconds: float = 0.0
    pace: Pace | None = None
    first: float | None = None
    best: dict[int, float] = field(default_factory=dict)
    last: float | None = None
    validated_step: int = -1
    train_distance: float | None = None

    @property
    def phase(self) -> int:
        """The phase of the last step done."""
        return self.schedule.phase(max(0, self.step - 1))

    @property
    def validation(self) -> Validation:
        """The held-out distances; the best is of the phase that an export now would be of."""
        return Validation(first=self.first, best=self.best.get(self.phase), last=self.last)

    def note(self, distance: float) -> None:
        """Keeps a held-out distance."""
        self.last, self.validated_step = distance, self.step
        if self.step == 0:
            self.first = distance
        else:
            self.best[self.phase] = min(distance, self.best.get(self.phase, math.inf))

    @staticmethod
    def from_saved(saved: Mapping[str, Any]) -> State:
        """The state that ``dataclasses.asdict`` was taken of."""
        pace = saved["pace"] and Pace(**saved["pace"])
        return State(**{**saved, "schedule": Schedule(**saved["schedule"]), "pace": pace})


def write_result(store: Store, spec: TrainingSpec, model: torch.nn.Module, state: State, *, complete: bool) -> None:
    """Writes ``weights.pt`` and last ``result.json``, which says that all of the run's files are there.

    Args:
        store: where to.
        spec: the run.
        model: with its latent axes and receptive field set.
        state: where the run stands.
        complete: whether its budget is spent.

    Raises:
        StoreError: they cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="rave-dist-weights-") as folder:
        path = Path(folder) / "weights.pt"
        torch.save({name: value.detach().cpu() for name, value in model.state_dict().items()}, path)
        store.upload(path, f"{spec.run_key}/weights.pt")
    distances = state.validation.to_json()
    result = {
        "phase": state.phase,
        "step": state.step,
        "steps": state.schedule.steps,
        "phase_1_steps": state.schedule.phase_1_steps,
        "complete": complete,
        "metrics": {f"validation_{name}": value for name, value in distances.items() if value is not None},
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
