"""What a run starts from instead of new weights: a base, kept in the store under the id of its content.

::

    bases/<id>/    config.gin, weights.pt, optimizers.pt (of runs that go on), base.json (written last)

A base is either a published model, whose weights are taken and nothing else, or a stock RAVE run. Of that the optimizers and
the step can be taken too: the run then goes on where stock RAVE stopped, and a budget in steps counts those of stock RAVE.
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
        """Where it stands in its schedule, if the run goes on from there."""
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
            training_step.go_on(*self.optimizers, step=self.step)


def weights_of_model(run: Path, *, version: str, origin: str) -> InitialWeights:
    """The start from a published model.

    Args:
        run: ``config.gin`` and ``weights.pt`` of its run.
        version: the model's, which is a hash of the two.
        origin: its name for people.
    """
    weights: dict[str, Tensor] = torch.load(run / "weights.pt", map_location="cpu", weights_only=True)
    return InitialWeights(version, origin, (run / "config.gin").read_text(encoding="utf-8"), weights)


def weights_of_stock_run(folder: Path, *, resume: bool, ema: bool) -> InitialWeights:
    """The start from a stock RAVE run.

    Args:
        folder: the run's, or one checkpoint.
        resume: go on with its optimizers and at its step.
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
            "this checkpoint holds no optimizers to go on with", where=str(checkpoint), fix="leave out resume"
        )
    identity = content_id([hash_file(checkpoint), run.config_text, resume, ema])
    start = InitialWeights(identity, f"stock run {folder}", run.config_text, weights)
    return replace(start, step=run.step, optimizers=run.optimizers) if resume else start


def store_initial_weights(store: Store, start: InitialWeights) -> str:
    """Puts a base into the store, where every node finds it, unless it is there; returns its id."""
    key = f"bases/{start.id}"
    if store.exists(f"{key}/base.json"):
        return start.id
    with tempfile.TemporaryDirectory(prefix="rave-dist-base-") as folder:
        parts = {"weights": dict(start.weights), "optimizers": start.optimizers}
        for name, value in parts.items():
            if value is not None:
                path = Path(folder) / f"{name}.pt"
                torch.save(value, path)
                store.upload(path, f"{key}/{name}.pt")
    store.write_bytes(f"{key}/config.gin", start.config_text.encode())
    store.write_json(f"{key}/base.json", {"origin": start.origin, "step": start.step})
    return start.id


def load_initial_weights(store: Store, base: str) -> InitialWeights:
    """A base that `store_initial_weights` has kept.

    Raises:
        TrainingError: it is not in the store.
    """
    key = f"bases/{base}"
    try:
        told = store.read_json(f"{key}/base.json")
        config_text = store.read_bytes(f"{key}/config.gin").decode()
        with tempfile.TemporaryDirectory(prefix="rave-dist-base-") as folder:
            files = {name: store.download(f"{key}/{name}.pt", Path(folder) / name) for name in _files(told)}
            loaded = {name: torch.load(path, map_location="cpu", weights_only=True) for name, path in files.items()}
    except MissingKeyError as error:
        raise TrainingError(
            "what this run starts from is not in the store",
            where=error.where,
            fix="run rave-dist train again, which puts it there",
        ) from error
    return InitialWeights(base, told["origin"], config_text, loaded["weights"], told["step"], loaded.get("optimizers"))


def _files(told: Mapping[str, Any]) -> tuple[str, ...]:
    return ("weights", "optimizers") if told["step"] else ("weights",)
