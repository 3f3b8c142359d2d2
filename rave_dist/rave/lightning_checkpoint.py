"""Reading and writing run folders of stock RAVE: ``config.gin`` and ``version_<n>/checkpoints/*.ckpt``.

A checkpoint of Lightning 1.9 is a mapping. ``rave export`` reads ``state_dict`` (and ``callbacks.EMA``); ``rave train --ckpt``
also ``optimizer_states`` (generator, discriminator), ``lr_schedulers``, ``global_step``, the loops' counters, and how many
steps RAVE's callbacks have counted, which determines phase and warm-up.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave_dist.errors import ConfigurationError, StoreError, from_os_error
from rave_dist.rave.config import with_schedule
from rave_dist.records import RunFolder

LIGHTNING = "1.9.0"
"""The version of Lightning that acids-rave pins; later ones read its checkpoints too."""

_COUNTERS = ("WarmupCallback", "QuantizeCallback", "BetaWarmupCallback")
_STEPS = "epoch_loop.batch_loop.manual_loop.optim_step_progress"  # where Lightning counts the steps of RAVE's own optimizers
_BEFORE = 1_000_000_000  # a time in the past


@dataclass(frozen=True)
class StockRun:
    """A stock run: its configuration, its weights and its progress.

    ``optimizers`` are the states of the generator's and the discriminator's; None where the checkpoint has only weights.
    ``averaged`` are the exponentially averaged weights, of runs that kept them.
    """

    config_text: str
    weights: dict[str, Tensor]
    step: int
    averaged: dict[str, Tensor] | None = None
    optimizers: tuple[dict[str, Any], dict[str, Any]] | None = None


def write_stock_run(run: RunFolder, folder: Path, *, step: int, saved: Mapping[str, Any] | None) -> Path:
    """Writes a finished run as a folder that ``rave export --run FOLDER`` opens.

    As in a stock run, ``best.ckpt`` has the exported weights and ``last.ckpt`` the state that ``rave train --ckpt`` needs to
    resume, if the run's last checkpoint is given. The first is the newer file, which stock RAVE prefers.

    Args:
        run: a local folder with the run's configuration and weights.
        folder: the folder to make.
        step: number of steps after which the run had these weights.
        saved: the run's last checkpoint; None writes no ``last.ckpt``.

    Returns:
        ``best.ckpt``.

    Raises:
        StoreError: the folder exists and is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError("the folder is not empty", where=str(folder), fix="name a folder that does not exist yet")
    config_text = Path(run.config).read_text(encoding="utf-8")
    weights: dict[str, Tensor] = torch.load(run.weights, map_location="cpu", weights_only=True)
    if saved is not None:
        schedule = saved["state"]["schedule"]
        config_text = with_schedule(config_text, phase_1_steps=schedule["phase_1_steps"], warmup_steps=schedule["warmup_steps"])
    place = folder / "version_0" / "checkpoints"
    try:
        place.mkdir(parents=True)
        (folder / "config.gin").write_text(config_text, encoding="utf-8")
        if saved is not None:
            torch.save(_resumable(saved), place / "last.ckpt")
            os.utime(place / "last.ckpt", (_BEFORE, _BEFORE))
        torch.save(_lightning(weights, step), place / "best.ckpt")
    except OSError as error:
        raise from_os_error(error, where=str(folder)) from error
    except RuntimeError as error:  # torch's writer hides the system's error
        fix = "free space on that disk, or choose a folder on a larger one"
        raise StoreError("the run cannot be written", where=str(folder), fix=fix) from error
    return place / "best.ckpt"


def _lightning(weights: dict[str, Tensor], step: int) -> dict[str, Any]:
    return {"pytorch-lightning_version": LIGHTNING, "epoch": 0, "global_step": step, "state_dict": weights}


def _resumable(saved: Mapping[str, Any]) -> dict[str, Any]:
    training, step = saved["training"], saved["state"]["step"]
    counted = {kind: {"ready": step, "completed": step} for kind in ("total", "current")}
    return {
        **_lightning(saved["model"], step),
        "optimizer_states": [training["generator_optimizer"], training["discriminator_optimizer"]],
        "lr_schedulers": [training["scheduler"]],
        "callbacks": {name: {"training_steps": step} for name in _COUNTERS},
        "loops": {"fit_loop": {_STEPS: counted, "epoch_loop.state_dict": {"_batches_that_stepped": step}}},
    }


def find_checkpoint(folder: Path) -> tuple[Path, Path]:
    """The newest checkpoint of a stock run and its ``config.gin``; newest by the files' times, as stock RAVE chooses.

    Args:
        folder: with ``config.gin``, and checkpoints anywhere below; or one checkpoint of it.

    Raises:
        ConfigurationError: there is no such run.
    """
    found = [folder] if folder.suffix == ".ckpt" else sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    checkpoints = [path for path in found if path.is_file()]
    config = next((place / "config.gin" for place in (folder, *folder.parents[:3]) if (place / "config.gin").is_file()), None)
    if not checkpoints or config is None:
        raise ConfigurationError(
            f"no stock RAVE run is here: there is no {'config.gin' if checkpoints else 'checkpoint'}",
            where=str(folder),
            fix="give the folder that holds config.gin and version_0",
        )
    return checkpoints[-1], config


def read_stock_run(checkpoint: Path, config: Path) -> StockRun:
    """Reads Lightning's checkpoint of a RAVE; code in it is not executed.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights, step = dict(found["state_dict"]), int(found.get("global_step", 0))
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            f"not a checkpoint of RAVE: {said}", where=str(checkpoint), fix="give another checkpoint of the run"
        ) from error
    averaged = found.get("callbacks", {}).get("EMA")
    states = found.get("optimizer_states", ())
    return StockRun(
        config_text=config.read_text(encoding="utf-8", errors="replace"),
        weights=weights,
        step=step,
        averaged={**weights, **averaged} if averaged else None,
        optimizers=(states[0], states[1]) if len(states) == 2 else None,
    )
