"""Where a run stands, and what it leaves at its end."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rave_dist import upstream
from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.split import split_dataset
from rave_dist.errors import MissingKeyError, TrainingError
from rave_dist.records import TrainingSpec, Validation
from rave_dist.storage import Store
from rave_dist.training.batches import PcmSegment
from rave_dist.training.checkpoint import load_checkpoint, load_weights
from rave_dist.training.schedule import Pace, Schedule
from rave_dist.training.validation import fit_latent
from rave_dist.training.variants import window_and_batch


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
    `rave_dist.records.Setback` as JSON. Every step is computed in ``parts`` parts."""

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
    parts: int = 1

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


def leave(
    store: Store,
    spec: TrainingSpec,
    model: torch.nn.Module,
    state: State,
    weights: Mapping[int, Mapping[str, torch.Tensor]],
    segments: Sequence[PcmSegment],
    *,
    complete: bool,
) -> None:
    """Leaves what a model is published from: ``weights.pt``, the best of the phase that the run is in, ``weights_phase_1.pt``
    beside it for a run in phase 2, and last ``result.json``, which says that all of the run's files are there.

    ``phase_1`` in that is the best of phase 1, whose weights are in the second file; null for runs that end there, and for
    runs that began after it.

    Args:
        store: where to.
        spec: the run.
        model: any of its weights, its receptive field set; what it holds afterwards is not said.
        state: where the run stands.
        weights: the best of each phase that has some; without the run's own phase the model's are taken.
        segments: training audio, for the latent axes of each.
        complete: whether the budget is spent.

    Raises:
        StoreError: they cannot be written.
    """
    device = next(model.parameters()).device
    for phase in sorted({state.phase, *weights}, reverse=True):
        if phase in weights:
            model.load_state_dict(dict(weights[phase]))
        fit_latent(model, segments, window=window_and_batch(spec)[0], device=device)
        file = "weights.pt" if phase == state.phase else "weights_phase_1.pt"
        with tempfile.TemporaryDirectory(prefix="rave-dist-weights-") as folder:
            save_weights(model, Path(folder) / file)
            store.upload(Path(folder) / file, f"{spec.run_key}/{file}")
    phase_1 = state.bests.get(1) if state.phase == 2 else None
    result = {
        "phase": state.phase,
        "step": state.step,
        "best_step": state.best.step if state.best else state.step,
        "steps": state.schedule.steps,
        "phase_1_steps": state.schedule.phase_1_steps,
        "phase_1": asdict(phase_1) if phase_1 else None,
        "complete": complete,
        "metrics": {f"validation_{name}": value for name, value in state.validation.to_json().items() if value is not None},
        "setbacks": state.setbacks,
        "parts": state.parts,
        "seconds": state.seconds,
    }
    store.write_json(_result_key(spec), result)


def leave_checkpoint(store: Store, spec: TrainingSpec) -> None:
    """Leaves of a run what its newest checkpoint holds, as if it had been stopped there, unless it has left more already.

    Args:
        store: where the run lies.
        spec: the run; it can go on afterwards.

    Raises:
        TrainingError: there is no checkpoint yet, or none that is whole.
        DatasetError: its dataset is not in the store.
        StoreError: the store cannot be used.
    """
    loaded, result = load_checkpoint(store, f"{spec.run_key}/checkpoints"), read_result(store, spec)
    if loaded is None and result is None:
        raise TrainingError("it has no checkpoint yet", fix="train it, and let it come to its first one")
    if loaded is None or (result is not None and result["step"] >= loaded[0]):
        return
    saved = loaded[1]
    model = upstream.build_model(store.read_bytes(f"{spec.run_key}/config.gin").decode(), channels=spec.channels)
    load_weights(model, saved["model"], where=store.address(spec.run_key))
    audio = split_dataset(store, load_manifest(store, spec.instrument, spec.dataset), window=window_and_batch(spec)[0])
    leave(store, spec, model, State.from_saved(saved["state"]), best_weights(saved), audio.train, complete=False)


def read_result(store: Store, spec: TrainingSpec) -> dict[str, Any] | None:
    """What a run ended with, or None where it never ended; ``complete`` in it says whether its budget was spent."""
    try:
        result: dict[str, Any] = store.read_json(_result_key(spec))
    except MissingKeyError:
        return None
    return result


def _result_key(spec: TrainingSpec) -> str:
    return f"{spec.run_key}/result.json"
