"""Records of runs: results, metrics, checkpoints, dry runs and initial weights."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record
from rave_dist.records.training import Rollback, Validation

DRY_RUNS = "dry_runs"
"""The folder of the results of dry runs."""


class BestWeights(Record):
    """The best weights of a phase: their step and their held-out distance."""

    step: int
    distance: float


class RunResult(Record):
    """The result of a run, or its present state, from which a model is published.

    ``phase_1`` are the best weights of phase 1 if they are stored in addition to those of phase 2; None for runs that ended in
    phase 1 or began after it. ``complete`` says whether the training budget was used up.
    """

    phase: int
    step: int
    best_step: int
    steps: int
    phase_1_steps: int
    phase_1: BestWeights | None = None
    complete: bool
    validation: Validation
    train_distance: float | None = None
    rollbacks: tuple[Rollback, ...] = ()
    accumulation_steps: int = 1
    seconds: float


class LossRow(Record):
    """The losses of a step, by RAVE's names; None stands for NaN or infinite values; ``step`` counts finished steps."""

    step: int
    phase: int
    values: dict[str, float | None]


class ValidationRow(Record):
    """A validation: the distances of held-out audio and of training audio."""

    step: int
    phase: int
    held_out: float | None
    training: float | None


class RunMetrics(Record):
    """Measurements of a run: a selection of its losses, and all validations."""

    train: tuple[LossRow, ...] = ()
    validation: tuple[ValidationRow, ...] = ()
    steps: int
    phase_1_steps: int
    window: int


class CheckpointInfo(Record):
    """The side file of a checkpoint, to verify it."""

    step: int
    sha256: str
    bytes: int


class WindowSource(Record):
    """The origin of a training window: the recording, and the first sample in it at the run's rate."""

    source: str
    sample: int
    seconds: float


class NotFiniteReport(Record):
    """The step (from 0) after which ``what`` was NaN or infinite, and the windows of its batch."""

    step: int
    what: str
    window: int
    windows: tuple[WindowSource, ...]


class DryRunResult(Record):
    """A successful dry run: its device, the accumulation steps that fit its memory, and what it used.

    ``limit_bytes`` is the memory of the device that it could use. ``device_bytes`` is the peak memory of the device; on a CPU,
    by how much the process grew. ``host_bytes`` is that of the process, without files that it maps. Both are raised if a run
    uses more. ``cpus`` are the CPU-seconds per second of its steps. ``id`` is the hash of the step
    (`TrainingSpec.worker_step_id`), the hash of all else that was tested, and the limit.
    """

    id: str
    instrument: str
    device: str
    accumulation_steps: int
    limit_bytes: int
    device_bytes: int
    host_bytes: int
    cpus: float
    at: str

    @property
    def key(self) -> str:
        """Key of this record in the store."""
        return f"{DRY_RUNS}/{self.id}.json"

    @property
    def step_id(self) -> str:
        """The `TrainingSpec.worker_step_id` of the runs that it is about."""
        return self.step_of(self.key)

    @staticmethod
    def step_of(key: str) -> str:
        """The `TrainingSpec.worker_step_id` in the key of a result."""
        return key.rpartition("/")[2].partition("-")[0]


class BaseRecord(Record):
    """Initial weights in the store: their origin for people, and the steps of the run to resume, otherwise 0."""

    origin: str
    step: int = Field(default=0, ge=0)
