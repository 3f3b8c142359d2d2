"""The outputs of a run in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.split import split_dataset
from rave_dist.errors import TrainingError
from rave_dist.rave.models import build_model
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import RunResult, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder
from rave_dist.training.data.loader import PcmSegment
from rave_dist.training.evaluation.latent_pca import fit_latent
from rave_dist.training.state.checkpoint import load_checkpoint, load_weights
from rave_dist.training.state.run_state import RunState


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Writes a model's weights for a run folder: its ``state_dict``, on the CPU."""
    torch.save({name: value.detach().cpu() for name, value in model.state_dict().items()}, path)


def write_outputs(
    store: Store,
    spec: TrainingSpec,
    model: torch.nn.Module,
    state: RunState,
    weights: Mapping[int, Mapping[str, torch.Tensor]],
    segments: Sequence[PcmSegment],
    *,
    complete: bool,
) -> None:
    """Writes the outputs of a run: the best weights of its phase, in phase 2 also those of phase 1, and the result.

    The result is written last and marks the files as complete.

    Args:
        store: of the run.
        spec: the run.
        model: with any weights, and its receptive field; its weights are undefined afterwards.
        state: of the run.
        weights: the best of each phase so far; those of the model if the run's phase has none.
        segments: training audio, for the latent axes.
        complete: whether the budget is used up.

    Raises:
        StoreError: they cannot be written.
    """
    device = next(model.parameters()).device
    for phase in sorted({state.phase, *weights}, reverse=True):
        if phase in weights:
            model.load_state_dict(dict(weights[phase]))
        fit_latent(model, segments, window=StepConfig.of(spec).window, device=device)
        with temporary_folder("weights") as folder:
            save_weights(model, Path(folder) / "weights")
            key = spec.folder.weights if phase == state.phase else spec.folder.weights_phase_1
            store.upload(Path(folder) / "weights", key)
    result = RunResult(
        phase=state.phase,
        step=state.step,
        best_step=state.best.step if state.best else state.step,
        steps=state.schedule.steps,
        phase_1_steps=state.schedule.phase_1_steps,
        phase_1=state.bests.get(1) if state.phase == 2 else None,
        complete=complete,
        validation=state.validation,
        train_distance=state.train_distance,
        rollbacks=tuple(state.rollbacks),
        accumulation_steps=state.accumulation_steps,
        seconds=state.seconds,
    )
    result.save(store, spec.folder.result)


def write_outputs_from_checkpoint(store: Store, spec: TrainingSpec, outputs: Store) -> None:
    """Writes the outputs of a run's newest checkpoint, as if it had been stopped there, unless newer ones exist.

    Args:
        store: of the run.
        spec: the run; training can continue afterwards.
        outputs: where to write them; the store, or a folder while a training process may write the run's own.

    Raises:
        TrainingError: there is no valid checkpoint yet.
        DatasetError: its dataset is not in the store.
        StoreError: the store cannot be used.
    """
    loaded, result = load_checkpoint(store, spec.folder.checkpoints), read_result(outputs, spec)
    if loaded is None and result is None:
        raise TrainingError("the run has no checkpoint yet", fix="train it until its first checkpoint")
    if loaded is None or (result is not None and result.step >= loaded[0]):
        return
    saved = loaded[1]
    model = build_model(store.read_bytes(spec.folder.config).decode(), channels=spec.channels)
    load_weights(model, saved["model"], where=store.address(spec.run_key))
    audio = split_dataset(store, load_manifest(store, spec.instrument, spec.dataset), window=StepConfig.of(spec).window)
    write_outputs(outputs, spec, model, RunState.from_saved(saved["state"]), saved["bests"], audio.train, complete=False)


def read_result(store: Store, spec: TrainingSpec) -> RunResult | None:
    """The result of a run; None if it has not ended yet, or the result is damaged.

    Raises:
        StoreError: the store cannot be read.
    """
    return RunResult.find(store, spec.folder.result)
