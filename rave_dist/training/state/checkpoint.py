"""Checkpoints: the complete state of a run, so that a killed run can be resumed without a difference.

A checkpoint is two objects, ``step-<n>.pt`` and then ``step-<n>.json`` with its sha256. Without the side file a checkpoint
does not exist; if it does not match, the checkpoint is damaged. The newest valid one is used; the newest few are kept.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rave_dist.errors import ConfigurationError, DamagedObjectError, MissingKeyError, TrainingError
from rave_dist.identity import hash_file
from rave_dist.records import CheckpointInfo, checkpoint_step, checkpoint_steps
from rave_dist.storage.backend import Entry
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

_DIFF_LINES = 6


def save_checkpoint(store: Store, folder: str, step: int, state: Mapping[str, Any], *, keep: int = 2) -> None:
    """Writes a checkpoint and removes older ones.

    Args:
        store: of the run.
        folder: the run's folder of checkpoints.
        step: number of finished steps.
        state: tensors, numbers, strings, None, and lists, tuples and mappings of them.
        keep: number of checkpoints to keep.

    Raises:
        StoreError: it could not be written; earlier checkpoints are unchanged.
    """
    name = _name(folder, step)
    with temporary_folder("checkpoint") as scratch:
        path = Path(scratch) / "state.pt"
        torch.save(dict(state), path)
        store.upload(path, f"{name}.pt")
        CheckpointInfo(step=step, sha256=hash_file(path), bytes=path.stat().st_size).save(store, f"{name}.json")
    remove_old_checkpoints(store, folder, step, keep=keep)


def remove_old_checkpoints(store: Store, folder: str, step: int, *, keep: int) -> None:
    """Keeps the checkpoint of a step and the newest complete others, ``keep`` in all; the rest is removed.

    Raises:
        StoreError: the store cannot be used.
    """
    entries = list(store.list(folder))
    others = sorted(_complete_steps(store, folder, entries) - {step}, reverse=True)[: keep - 1]
    for entry in entries:
        if checkpoint_step(entry.key) not in (None, step, *others):
            store.delete(entry.key)


def load_checkpoint(store: Store, folder: str) -> tuple[int, dict[str, Any]] | None:
    """The newest valid checkpoint, on the CPU; damaged ones are removed.

    One without a valid side file was not completed, and one whose state is missing may only be late: they are left alone.

    Returns:
        The number of finished steps and the state; None if there is no checkpoint.

    Raises:
        TrainingError: all checkpoints are damaged, or this version of torch cannot read them.
        StoreError: the store cannot be read.
    """
    damaged = False
    for step in sorted(checkpoint_steps((entry.key for entry in store.list(folder)), folder), reverse=True):
        name = _name(folder, step)
        info = CheckpointInfo.find(store, f"{name}.json")
        if info is None:
            continue
        state = _load(store, name, info)
        if state is not None:
            return step, state
        damaged = True
    if damaged:
        raise TrainingError(
            "every checkpoint of this run is damaged",
            where=store.address(folder),
            fix="delete that folder to train this instrument from the beginning",
        )
    return None


def last_checkpoint(store: Store, folder: str) -> dict[str, Any] | None:
    """The state of the newest valid checkpoint; None if there is none, or none that can be read."""
    try:
        loaded = load_checkpoint(store, folder)
    except TrainingError:
        return None
    return None if loaded is None else loaded[1]


def load_weights(model: torch.nn.Module, weights: Mapping[str, Any], *, where: str) -> None:
    """Loads weights into a model of the same architecture.

    Args:
        model: any module.
        weights: a ``state_dict``, on any device.
        where: the file or run of the weights, for the message.

    Raises:
        ConfigurationError: a name is missing or unknown, or a shape differs; the message shows the first few differences,
            and the model is unchanged.
    """
    own = model.state_dict()
    lines = [f"- {name} {_shape(weights[name])}" for name in weights if name not in own]
    lines += [f"+ {name} {_shape(own[name])}" for name in own if name not in weights]
    for name in own:
        if name in weights and _shape(own[name]) != _shape(weights[name]):
            lines.append(f"! {name} {_shape(weights[name])} -> {_shape(own[name])}")
    if lines:
        shown = [*lines[:_DIFF_LINES], *([f"and {len(lines) - _DIFF_LINES} more"] if len(lines) > _DIFF_LINES else [])]
        raise ConfigurationError(
            f"these weights belong to another model (- theirs, + this model's, ! another shape): {'; '.join(shown)}",
            where=where,
            fix="set config, override, sample_rate and channels as in the training of the weights",
        )
    model.load_state_dict(dict(weights))


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if isinstance(value, torch.Tensor) else None


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all global random generators, as values for a checkpoint."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Restores the states of all global random generators from `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(states["python"])


def seed_everything(seed: int) -> None:
    """Seeds all global random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _load(store: Store, name: str, info: CheckpointInfo) -> dict[str, Any] | None:
    with temporary_folder("checkpoint") as scratch:
        path = Path(scratch) / "state.pt"
        try:
            store.download(f"{name}.pt", path)
        except MissingKeyError:
            return None
        if hash_file(path) != info.sha256:
            store.delete(f"{name}.json")
            store.delete(f"{name}.pt")
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise TrainingError(
                f"this version of torch cannot read the checkpoint ({str(error).splitlines()[0]})",
                where=store.address(f"{name}.pt"),
                fix="continue with the version that wrote it, or delete the folder to train from the beginning",
            ) from error
    return state


def _complete_steps(store: Store, folder: str, entries: Sequence[Entry]) -> set[int]:
    """Steps of the checkpoints whose side file is valid and whose state has the size that it says."""
    sizes = {entry.key: entry.bytes for entry in entries}

    def is_complete(step: int) -> bool:
        state = sizes.get(f"{_name(folder, step)}.pt")
        try:
            return state == CheckpointInfo.load(store, f"{_name(folder, step)}.json").bytes
        except MissingKeyError:
            return state is not None  # it was listed, so it is only late
        except DamagedObjectError:
            return False

    return {step for step in checkpoint_steps(sizes, folder) if is_complete(step)}


def _name(folder: str, step: int) -> str:
    return f"{folder}/step-{step:09d}"
