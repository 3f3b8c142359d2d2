"""Trains a run of a library once more, in this process and without faults, to compare the weights."""

from __future__ import annotations

from pathlib import Path

import torch

from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.split import split_dataset
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import RunRecord, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.state.outputs import read_result
from rave_dist.training.trainer import train


def has_undisturbed_weights(store: Store, record: RunRecord, folder: Path) -> bool:
    """Whether the weights of a finished run are bitwise those of an undisturbed training.

    Args:
        store: of the run and its dataset.
        record: of the run.
        folder: for a store of the undisturbed run, and for copies.
    """
    torch.set_num_threads(record.threads or 1)
    local = Store(str(folder / "undisturbed"))
    spec = TrainingSpec.load(store, record.folder.spec)
    result = read_result(store, spec)
    assert result is not None
    audio = split_dataset(store, load_manifest(store, spec.instrument, spec.dataset), window=StepConfig.of(spec).window)
    train(local, spec, audio.train, audio.validation, accumulation_steps=result.accumulation_steps)
    return are_equal_weights((store, spec.folder.weights), (local, spec.folder.weights), folder)


def are_equal_weights(ours: tuple[Store, str], theirs: tuple[Store, str], folder: Path) -> bool:
    """Whether two objects of stores have bitwise the same weights; they are copied to a folder."""
    places = [store.download(key, folder / f"{number}.pt") for number, (store, key) in enumerate((ours, theirs))]
    one, other = (torch.load(place, weights_only=True) for place in places)
    return all(torch.equal(one[key], other[key]) for key in other)
