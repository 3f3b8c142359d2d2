"""The names of all files of runs, models, exports, datasets and bases.

The names are keys if ``root`` is a folder of a store, and paths if it is a local folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ExportKind = Literal["offline", "streaming"]


class _In:
    """A file of a folder, read as its key or path.

    Args:
        name: relative to the folder's ``root``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: Any, owner: type) -> str:
        return f"{folder.root}/{self._name}"


def checkpoint_step(key: str) -> int | None:
    """The step in the name of a checkpoint's file; None for other files."""
    stem = key.rpartition("/")[2].partition(".")[0]
    digits = stem.removeprefix("step-")
    return int(digits) if digits != stem and digits.isdigit() else None


def checkpoint_steps(keys: Iterable[str], folder: str) -> set[int]:
    """The steps of the checkpoints of a folder among the keys of a store: those with a side file."""
    sides = (key for key in keys if key.startswith(f"{folder}/") and key.endswith(".json"))
    return {step for key in sides if (step := checkpoint_step(key)) is not None}


@dataclass(frozen=True)
class RunFolder:
    """A training run. ``result`` is written last and marks the run's outputs as complete."""

    root: str | Path

    @staticmethod
    def of(library: str, instrument: str, run_id: str) -> RunFolder:
        """The folder of a run in a store."""
        return RunFolder(f"runs/{library}/{instrument}/{run_id}")

    spec = _In("spec.json")
    """The parameters of the run: `rave_dist.records.TrainingSpec`."""

    config = _In("config.gin")
    """The gin configuration, complete."""

    weights = _In("weights.pt")
    """The weights to export: the best of the last phase."""

    weights_phase_1 = _In("weights_phase_1.pt")
    """The best weights of phase 1, of runs in phase 2."""

    result = _In("result.json")
    """The result: `rave_dist.records.RunResult`."""

    metrics = _In("metrics.json")
    """Losses and held-out distances by step: `rave_dist.records.RunMetrics`."""

    events = _In("events")
    """The folder of TensorBoard events."""

    checkpoints = _In("checkpoints")
    """The folder of checkpoints."""

    not_finite = _In("not_finite.json")
    """The batch after which a value was NaN or infinite: `rave_dist.records.NotFiniteReport`."""

    train = _In("train")
    """What Ray Train keeps of a run with several workers, while it trains."""

    stop = _In("stop")
    """An empty object that asks the run to save its state and stop."""

    def checkpoint_steps(self, keys: Iterable[str]) -> set[int]:
        """The steps of its checkpoints among keys of its store."""
        return checkpoint_steps(keys, str(self.checkpoints))

    probe = _In("probe.npy")
    """Audio of the instrument, ``[C, T]``, for the checks of an export; in local folders only."""


@dataclass(frozen=True)
class _ModelFiles:
    root: str | Path
    name: str

    @property
    def offline(self) -> str:
        """TorchScript for files and archives."""
        return f"{self.root}/{self.name}.ts"

    @property
    def streaming(self) -> str:
        """TorchScript for nn~."""
        return f"{self.root}/{self.name}_streaming.ts"

    def file(self, kind: ExportKind) -> str:
        """One of the two TorchScript files."""
        return self.offline if kind == "offline" else self.streaming


@dataclass(frozen=True)
class ModelFolder(_ModelFiles):
    """A published version of a model. ``card`` is written last and marks the version as complete."""

    @staticmethod
    def of(name: str, version: str) -> ModelFolder:
        """The folder of a version in a store."""
        return ModelFolder(f"{ModelFolder.versions(name)}/{version}", name)

    @staticmethod
    def versions(name: str = "") -> str:
        """The folder of all versions of a model, or of all models."""
        return f"models/{name}".rstrip("/")

    @staticmethod
    def publications(name: str) -> str:
        """The folder of the order of a model's publications."""
        return f"{ModelFolder.versions(name)}/publications"

    @staticmethod
    def publication(name: str, number: int) -> str:
        """A publication: `rave_dist.records.Publication`."""
        return f"{ModelFolder.publications(name)}/{number:08d}.json"

    card = _In("card.json")
    """The model's card: `rave_dist.records.ModelCard`."""

    samples = _In("samples/samples.json")
    """The sources of the listening examples, written last: `rave_dist.records.ListeningRecord`."""

    def sample(self, role: str) -> str:
        """A listening example: ``original``, ``reconstruction`` or ``transfer``."""
        return f"{self.root}/samples/{role}.flac"


@dataclass(frozen=True)
class ExportFolder(_ModelFiles):
    """An export before it is published; a local folder."""

    phase_1 = _In("phase_1.ts")
    """The offline export of the best weights of phase 1."""

    record = _In("export.json")
    """The export: `rave_dist.records.ExportRecord`."""

    probe = _In("probe.pt")
    """Audio, and the trained model's output for it."""


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset. ``manifest`` is written last and marks it as complete."""

    root: str | Path

    @staticmethod
    def of(instrument: str, dataset_id: str) -> DatasetFolder:
        """The folder of a dataset in a store."""
        return DatasetFolder(f"datasets/{instrument}/{dataset_id}")

    @staticmethod
    def shards(instrument: str) -> str:
        """The folder of an instrument's PCM; all its datasets may refer to it."""
        return f"datasets/{instrument}/shards"

    @staticmethod
    def pointers(instrument: str) -> str:
        """The folder of the pointers to an instrument's current datasets, one per library."""
        return f"datasets/{instrument}/latest"

    @staticmethod
    def latest(instrument: str, library: str) -> str:
        """The current dataset of a library: `rave_dist.records.DatasetPointer`."""
        return f"{DatasetFolder.pointers(instrument)}/{library}.json"

    manifest = _In("manifest.json")
    """`rave_dist.records.DatasetManifest`."""


@dataclass(frozen=True)
class BaseFolder:
    """Initial weights of runs; ``record`` is written last and marks them as complete."""

    root: str | Path

    @staticmethod
    def of(base_id: str) -> BaseFolder:
        """The folder of initial weights in a store."""
        return BaseFolder(f"bases/{base_id}")

    config = _In("config.gin")
    """The gin configuration of the weights."""

    weights = _In("weights.pt")
    """The weights."""

    optimizers = _In("optimizers.pt")
    """The optimizers, of stock runs that are resumed."""

    record = _In("base.json")
    """`rave_dist.records.BaseRecord`."""


@dataclass(frozen=True)
class ConversionFolder:
    """A conversion of a corpus."""

    root: str | Path

    @staticmethod
    def of(conversion_id: str) -> ConversionFolder:
        """The folder of a conversion in a store."""
        return ConversionFolder(f"conversions/{conversion_id}")

    request = _In("request.json")
    """The request: `rave_dist.records.ConversionRequest`."""

    record = _In("record.json")
    """The outcome: `rave_dist.records.ConversionRecord`."""

    journal = _In("journal")
    """The folder of `rave_dist.records.ConversionItem`, one per output."""

    table = _In("journal.parquet")
    """The journal as a table: `rave_dist.conversion.table`."""

    parts = _In("parts")
    """The folder of parts of long outputs that are not complete."""

    def parts_of(self, output_id: str) -> str:
        """The folder of the parts of an output."""
        return f"{self.parts}/{output_id}"

    def entry(self, output_id: str) -> str:
        """The journal's entry of an output, by the hash of its name."""
        return f"{self.journal}/{output_id}.json"
