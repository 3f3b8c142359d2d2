"""What a run starts from instead of new weights: a base, kept in the store under the id of its content.

::

    bases/<id>/    see `rave_dist.records.BaseFolder`

A base is either a published model, whose weights are taken and nothing else, or a stock RAVE run. Of that the optimizers and
the step can be used too: the run then resumes where stock RAVE stopped, and a budget in steps counts those of stock RAVE.
"""

from __future__ import annotations

import tempfile
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
from rave_dist.training.schedule import ResumePoint
from rave_dist.training.state.checkpoint import load_weights
from rave_dist.training.step.training_step import TrainingStep


@dataclass(frozen=True)
class InitialWeights:
    """What a run begins with.

    ``origin`` says for people where it comes from. ``step`` and ``optimizers`` (generator, discriminator) are of runs that go
    on; others begin at step 0 with new ones.
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
        """What it was trained at, if it says so."""
        return sample_rate_of(self.config_text)

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where it stands in its schedule, if the run is resumed from there."""
        if self.optimizers is None:
            return None
        return ResumePoint(self.origin, self.step, *schedule_of(self.config_text))

    def put_into(self, model: torch.nn.Module) -> None:
        """Gives a model the weights, except its receptive field: it cannot be measured any more in a model of phase 2.

        Raises:
            ConfigurationError: the model is of another architecture; with a diff.
        """
        load_weights(model, {**self.weights, "receptive_field": model.receptive_field}, where=self.origin)

    def restore(self, training_step: TrainingStep) -> None:
        """Gives a training step the optimizers, and the learning rate of this moment in its own schedule."""
        if self.optimizers is not None:
            training_step.resume(*self.optimizers, step=self.step)


def weights_of_model(run: RunFolder, *, version: str, origin: str) -> InitialWeights:
    """The start from a published model.

    Args:
        run: a local folder with the configuration and the weights of its run.
        version: the model's, which is a hash of the two.
        origin: its name for people.
    """
    weights: dict[str, Tensor] = torch.load(run.weights, map_location="cpu", weights_only=True)
    return InitialWeights(version, origin, Path(run.config).read_text(encoding="utf-8"), weights)


def weights_of_stock_run(folder: Path, *, resume: bool, ema: bool) -> InitialWeights:
    """The start from a stock RAVE run.

    Args:
        folder: the run's, or one checkpoint.
        resume: keep its optimizers and its step.
        ema: its averaged weights.

    Raises:
        ConfigurationError: no such run, or it has not kept what is asked for.
    """
    checkpoint, config = find_checkpoint(folder)
    run = read_stock_run(checkpoint, config)
    weights = run.averaged if ema else run.weights
    if weights is None:
        raise ConfigurationError("this run kept no averaged weights", where=str(checkpoint), fix="leave out ema")
    if resume and run.optimizers is None:
        raise ConfigurationError(
            "this checkpoint holds no optimizers to resume with", where=str(checkpoint), fix="leave out resume"
        )
    identity = content_id([hash_file(checkpoint), run.config_text, resume, ema])
    start = InitialWeights(identity, f"stock run {folder}", run.config_text, weights)
    return replace(start, step=run.step, optimizers=run.optimizers) if resume else start


def store_initial_weights(store: Store, start: InitialWeights) -> str:
    """Puts a base into the store, where every node finds it, unless it is there; returns its id."""
    base = BaseFolder.of(start.id)
    if store.exists(base.record):
        return start.id
    files = {base.weights: dict(start.weights), base.optimizers: start.optimizers}
    with tempfile.TemporaryDirectory(prefix="rave-dist-base-") as folder:
        path = Path(folder) / "file.pt"
        for key, value in files.items():
            if value is not None:
                torch.save(value, path)
                store.upload(path, key)
    store.write_bytes(base.config, start.config_text.encode())
    BaseRecord(origin=start.origin, step=start.step).save(store, base.record)
    return start.id


def load_initial_weights(store: Store, base: str) -> InitialWeights:
    """A base that `store_initial_weights` has kept.

    Raises:
        TrainingError: it is not in the store.
    """
    folder = BaseFolder.of(base)
    try:
        record = BaseRecord.load(store, folder.record)
        config_text = store.read_bytes(folder.config).decode()
        weights = _load(store, folder.weights)
        optimizers = _load(store, folder.optimizers) if record.step else None
    except MissingKeyError as error:
        raise TrainingError(
            "what this run starts from is not in the store",
            where=error.where,
            fix="run rave-dist train again, which puts it there",
        ) from error
    return InitialWeights(base, record.origin, config_text, weights, record.step, optimizers)


def _load(store: Store, key: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="rave-dist-base-") as folder:
        return torch.load(store.download(key, Path(folder) / "file.pt"), map_location="cpu", weights_only=True)
