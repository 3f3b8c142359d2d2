"""Records that a run leaves in its folder: results, metrics, checkpoints, and what else training keeps in the store."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record
from rave_dist.records.training import Rollback, Validation


class BestWeights(Record):
    """The best weights of a phase: after how many steps of the run, and their distance from held-out audio."""

    step: int
    distance: float


class RunResult(Record):
    """How a run ended, or where it stands: what a model is published from.

    ``phase_1`` are the best weights of phase 1 where they are stored next to those of phase 2; None for runs that ended in
    phase 1 and for runs that began after it. ``complete`` says whether the training budget was used up.
    """

    phase: int
    step: int
    best_step: int
    steps: int
    phase_1_steps: int
    phase_1: BestWeights | None = None
    complete: bool
    validation: Validation
    rollbacks: tuple[Rollback, ...] = ()
    accumulation_steps: int = 1
    seconds: float


class LossRow(Record):
    """The losses of a step, by RAVE's names; None stands for NaN or infinite values. ``step`` counts the steps done."""

    step: int
    phase: int
    values: dict[str, float | None]


class ValidationRow(Record):
    """A validation: the distance from held-out audio, and the same measure of training audio."""

    step: int
    phase: int
    held_out: float | None
    training: float | None


class RunMetrics(Record):
    """What a run measured: a selection of its losses, and every validation."""

    train: tuple[LossRow, ...] = ()
    validation: tuple[ValidationRow, ...] = ()
    steps: int
    phase_1_steps: int
    window: int


class CheckpointInfo(Record):
    """The side file of a checkpoint, by which it is checked when it is read."""

    step: int
    sha256: str
    bytes: int


class WindowSource(Record):
    """Where a training window came from: the recording, and its first sample there at the run's rate."""

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
    """A dry run that succeeded: on which device, and in how many parts a step fits its memory."""

    instrument: str
    device: str
    accumulation_steps: int
    at: str

    @staticmethod
    def key(request_id: str) -> str:
        """The key of a result, by the hash of all that decides it."""
        return f"dry_runs/{request_id}.json"


class BaseRecord(Record):
    """Initial weights in the store: their origin for people, and the steps of the run that is resumed from them, else 0."""

    origin: str
    step: int = Field(default=0, ge=0)
