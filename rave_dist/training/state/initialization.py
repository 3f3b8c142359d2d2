"""Initial weights from a base, stored under the id of their content.

::

    bases/<id>/    see `rave_dist.records.BaseFolder`

A base is either a published model, of which only the weights are used, or a stock RAVE run. Its optimizers and step can also be
used: the run then resumes the stock run, and a budget in steps includes the steps of stock RAVE.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave_dist.errors import ConfigurationError, MissingKeyError, TrainingError
from rave_dist.identity import content_id, hash_file
from rave_dist.rave.config import sample_rate_of, schedule_of
from rave_dist.rave.lightning_checkpoint import find_checkpoint, read_stock_run
from rave_dist.records import BaseFolder, BaseRecord, RunFolder
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder
from rave_dist.training.schedule import ResumePoint
from rave_dist.training.state.checkpoint import load_weights
from rave_dist.training.step.training_step import TrainingStep


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights of a run.

    ``origin`` describes their source for users. ``step`` and ``optimizers`` (generator, discriminator) are those of a run to
    resume; other runs start at step 0 with new ones.
    """

    id: str
    origin: str
    config_text: str
    weights: Mapping[str, Tensor]
    step: int = 0
    optimizers: tuple[dict[str, Any], dict[str, Any]] | None = None

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of every weight."""
        return {name: list(value.shape) for name, value in self.weights.items()}

    @property
    def sample_rate(self) -> int | None:
        """The sample rate of its training, if known."""
        return sample_rate_of(self.config_text)

    @property
    def resume_point(self) -> ResumePoint | None:
        """The point in the schedule to resume from, if any."""
        if self.optimizers is None:
            return None
        return ResumePoint(self.origin, self.step, *schedule_of(self.config_text))

    def put_into(self, model: torch.nn.Module) -> None:
        """Loads the weights into a model, except its receptive field, which cannot be measured in a model of phase 2.

        Raises:
            ConfigurationError: the model has another architecture; the message shows the differences.
        """
        load_weights(model, {**self.weights, "receptive_field": model.receptive_field}, where=self.origin)

    def restore(self, training_step: TrainingStep) -> None:
        """Loads the optimizers into a training step, with the learning rate of its own schedule."""
        if self.optimizers is not None:
            training_step.resume(*self.optimizers, step=self.step)


def weights_of_model(run: RunFolder, *, version: str, origin: str) -> InitialWeights:
    """The initial weights from a published model.

    Args:
        run: a local folder with the configuration and the weights of its run.
        version: of the model, a hash of the two.
        origin: its name for users.
    """
    weights: dict[str, Tensor] = torch.load(run.weights, map_location="cpu", weights_only=True)
    return InitialWeights(version, origin, Path(run.config).read_text(encoding="utf-8"), weights)


def weights_of_stock_run(folder: Path, *, resume: bool, ema: bool) -> InitialWeights:
    """The initial weights from a stock RAVE run.

    Args:
        folder: of the run, or one of its checkpoints.
        resume: use its optimizers and its step.
        ema: use its averaged weights.

    Raises:
        ConfigurationError: no such run, or it does not have the requested weights or optimizers.
    """
    checkpoint, config = find_checkpoint(folder)
    run = read_stock_run(checkpoint, config)
    weights = run.averaged if ema else run.weights
    if weights is None:
        raise ConfigurationError("this run has no averaged weights", where=str(checkpoint), fix="leave out ema")
    if resume and run.optimizers is None:
        raise ConfigurationError(
            "this checkpoint has no optimizers to resume with", where=str(checkpoint), fix="leave out resume"
        )
    identity = content_id([hash_file(checkpoint), run.config_text, resume, ema])
    start = InitialWeights(identity, f"stock run {folder}", run.config_text, weights)
    return replace(start, step=run.step, optimizers=run.optimizers) if resume else start


def store_initial_weights(store: Store, start: InitialWeights) -> str:
    """Writes initial weights to the store, unless they exist, for all nodes; returns their id."""
    base = BaseFolder.of(start.id)
    if BaseRecord.find(store, base.record) is not None:
        return start.id
    files = {base.weights: dict(start.weights), base.optimizers: start.optimizers}
    with temporary_folder("base") as folder:
        path = Path(folder) / "file.pt"
        for key, value in files.items():
            if value is not None:
                torch.save(value, path)
                store.upload(path, key)
    store.write_bytes(base.config, start.config_text.encode())
    BaseRecord(origin=start.origin, step=start.step).save(store, base.record)
    return start.id


def load_initial_weights(store: Store, base: str) -> InitialWeights:
    """Initial weights written by `store_initial_weights`.

    Raises:
        TrainingError: they are not in the store, or damaged.
    """
    folder = BaseFolder.of(base)
    try:
        record = BaseRecord.load(store, folder.record)
        config_text = store.read_bytes(folder.config).decode()
        weights = _load(store, folder.weights)
        optimizers = _load(store, folder.optimizers) if record.step else None
    except MissingKeyError as error:
        raise TrainingError(
            "the initial weights of this run are not in the store",
            where=error.where,
            fix="run rave-dist train again, which writes them",
        ) from error
    return InitialWeights(base, record.origin, config_text, weights, record.step, optimizers)


def _load(store: Store, key: str) -> Any:
    with temporary_folder("base") as folder:
        path = store.download(key, Path(folder) / "file.pt")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise TrainingError(
                "the initial weights of this run are damaged",
                where=store.address(key),
                fix="delete the folder that they are in and run rave-dist train again, which writes them",
            ) from error
