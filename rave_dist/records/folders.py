"""The names of all files of runs, models, exports, datasets and bases.

Properties are keys if ``root`` is a folder of a store, and paths if it is a local folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ExportKind = Literal["offline", "streaming"]


@dataclass(frozen=True)
class RunFolder:
    """A training run. ``result`` is written last and marks the run's outputs as complete."""

    root: str | Path

    @staticmethod
    def of(library: str, instrument: str, run_id: str) -> RunFolder:
        """The folder of a run in a store."""
        return RunFolder(f"runs/{library}/{instrument}/{run_id}")

    @property
    def spec(self) -> str:
        """The parameters of the run: `rave_dist.records.TrainingSpec`."""
        return f"{self.root}/spec.json"

    @property
    def config(self) -> str:
        """The gin configuration, complete."""
        return f"{self.root}/config.gin"

    @property
    def weights(self) -> str:
        """The weights to export: the best of the last phase."""
        return f"{self.root}/weights.pt"

    @property
    def weights_phase_1(self) -> str:
        """The best weights of phase 1, of runs in phase 2."""
        return f"{self.root}/weights_phase_1.pt"

    @property
    def result(self) -> str:
        """The result: `rave_dist.records.RunResult`."""
        return f"{self.root}/result.json"

    @property
    def metrics(self) -> str:
        """Losses and held-out distances by step: `rave_dist.records.RunMetrics`."""
        return f"{self.root}/metrics.json"

    @property
    def events(self) -> str:
        """The folder of TensorBoard events."""
        return f"{self.root}/events"

    @property
    def checkpoints(self) -> str:
        """The folder of checkpoints."""
        return f"{self.root}/checkpoints"

    @property
    def not_finite(self) -> str:
        """The batch after which a value was NaN or infinite: `rave_dist.records.NotFiniteReport`."""
        return f"{self.root}/not_finite.json"

    @property
    def stop(self) -> str:
        """An empty object that asks the run to save its state and stop."""
        return f"{self.root}/stop"

    @property
    def ray(self) -> str:
        """The folder of Ray Train's own files."""
        return f"{self.root}/ray"

    @property
    def probe(self) -> str:
        """Audio of the instrument, ``[C, T]``, for the checks of an export; in local folders only."""
        return f"{self.root}/probe.npy"


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
    def latest(name: str) -> str:
        """The latest version: `rave_dist.records.ModelPointer`."""
        return f"{ModelFolder.versions(name)}/latest.json"

    @property
    def card(self) -> str:
        """The model's card: `rave_dist.records.ModelCard`."""
        return f"{self.root}/card.json"

    @property
    def samples(self) -> str:
        """The sources of the listening examples, written last: `rave_dist.records.ListeningRecord`."""
        return f"{self.root}/samples/samples.json"

    def sample(self, role: str) -> str:
        """A listening example: ``original``, ``reconstruction`` or ``transfer``."""
        return f"{self.root}/samples/{role}.flac"


@dataclass(frozen=True)
class ExportFolder(_ModelFiles):
    """An export before it is published; a local folder."""

    @property
    def phase_1(self) -> str:
        """The offline export of the best weights of phase 1."""
        return f"{self.root}/phase_1.ts"

    @property
    def record(self) -> str:
        """The export: `rave_dist.records.ExportRecord`."""
        return f"{self.root}/export.json"

    @property
    def probe(self) -> str:
        """Audio, and the trained model's output for it."""
        return f"{self.root}/probe.pt"


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

    @property
    def manifest(self) -> str:
        """`rave_dist.records.DatasetManifest`."""
        return f"{self.root}/manifest.json"


@dataclass(frozen=True)
class BaseFolder:
    """Initial weights of runs; ``record`` is written last and marks them as complete."""

    root: str | Path

    @staticmethod
    def of(base_id: str) -> BaseFolder:
        """The folder of initial weights in a store."""
        return BaseFolder(f"bases/{base_id}")

    @property
    def config(self) -> str:
        """The gin configuration of the weights."""
        return f"{self.root}/config.gin"

    @property
    def weights(self) -> str:
        """The weights."""
        return f"{self.root}/weights.pt"

    @property
    def optimizers(self) -> str:
        """The optimizers, of stock runs that are resumed."""
        return f"{self.root}/optimizers.pt"

    @property
    def record(self) -> str:
        """`rave_dist.records.BaseRecord`."""
        return f"{self.root}/base.json"


@dataclass(frozen=True)
class ConversionFolder:
    """A conversion of a corpus."""

    root: str | Path

    @staticmethod
    def of(conversion_id: str) -> ConversionFolder:
        """The folder of a conversion in a store."""
        return ConversionFolder(f"conversions/{conversion_id}")

    @property
    def request(self) -> str:
        """The request: `rave_dist.records.ConversionRequest`."""
        return f"{self.root}/request.json"

    @property
    def record(self) -> str:
        """The outcome: `rave_dist.records.ConversionRecord`."""
        return f"{self.root}/record.json"

    @property
    def journal(self) -> str:
        """The folder of `rave_dist.records.ConversionItem`, one per output."""
        return f"{self.root}/journal"

    def entry(self, output_id: str) -> str:
        """The journal's entry of an output, by the hash of its name."""
        return f"{self.journal}/{output_id}.json"
