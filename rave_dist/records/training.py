"""Records of training: the parameters and the progress of a run."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from rave_dist.identity import content_id
from rave_dist.options import STOCK_AUGMENTATIONS, Budget, CheckpointPolicy, ComputeOption, Placement, Recovery
from rave_dist.records.base import Problem, Record, now
from rave_dist.records.folders import RunFolder
from rave_dist.records.verdict import Verdict

RunStatus = Literal["waiting", "running", "done", "failed"]
RunActivity = Literal["waiting", "starting", "copying audio", "dry run", "training", "exporting", "measuring"]

CURVE_POINTS = 32
"""Maximum validations in the curve of a run record, which is rewritten every few seconds."""


class Continuation(Record):
    """The run that another one continues, and the step of its checkpoint."""

    run_id: str
    step: int


class TrainingSpec(Record):
    """The parameters of one run, with its checkpoint policy, its recovery and its place on a cluster.

    ``window`` (samples) and ``batch`` are None for the configuration's default; ``auto`` is that batch, with the accumulation
    steps that the memory needs. ``base`` is the id of the initial weights (`BaseFolder`); None for new ones; with
    ``freeze_encoder`` the encoder keeps them. ``augment`` has the probability of each augmentation, ``compute`` the options of
    arithmetic and speed (`rave_dist.training.step.precision`); ``workers`` is the number of processes that divide the batch.
    For extensions (`rave_dist.extensions`), ``losses`` has the weight of each further loss, ``exports`` and ``metrics`` the
    names of further files and metrics of the published model.
    ``continues`` is the run whose checkpoint it starts from (`rave_dist.training.continuation`).
    """

    NOT_IDENTITY: ClassVar = ("checkpoint", "recover", "placement", "workers", "credit", "exports", "metrics")

    library: str
    instrument: str
    dataset: str
    config: tuple[str, ...]
    override: dict[str, Any] = Field(default_factory=dict)
    sample_rate: int
    channels: int
    window: int | None = None
    batch: int | Literal["auto"] | None = None
    budget: Budget
    seed: int
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    recover: Recovery | None = None
    placement: Placement = Placement()
    workers: int = 1
    credit: dict[str, str] = Field(default_factory=dict)
    base: str | None = None
    freeze_encoder: bool = False
    augment: dict[str, float] = STOCK_AUGMENTATIONS
    losses: dict[str, float] = Field(default_factory=dict)
    exports: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    compute: tuple[ComputeOption, ...] = ()
    continues: Continuation | None = None

    @property
    def run_id(self) -> str:
        """Hash of the parameters that affect the result.

        The checkpoint policy, the placement and the credit do not. Workers change the order of additions, as threads do. The
        recovery does not change runs that need none, and must find the checkpoints of those that do. Exports and metrics are
        derived from the result.
        """
        return self._id(*(() if self.continues else ("continues",)))

    @property
    def settings_id(self) -> str:
        """Hash of the parameters that affect the result, without the budget."""
        return self._id("budget", "continues")

    @property
    def step_id(self) -> str:
        """Hash of the parameters that decide how long a step takes."""
        step = {"config", "override", "sample_rate", "channels", "window", "batch", "losses", "compute"}
        return content_id(self.model_dump(mode="json", include=step | ({"freeze_encoder"} if self.freeze_encoder else set())))

    @property
    def worker_step_id(self) -> str:
        """Hash of the parameters that decide what a step needs of each of its workers."""
        return self.step_id if self.workers == 1 else content_id([self.step_id, self.workers])

    def changes(self, other: TrainingSpec) -> list[str]:
        """The names of the parameters in which another run's result may differ, as in the manifest."""
        names = (name for name in TrainingSpec.model_fields if name not in (*self.NOT_IDENTITY, "continues"))
        changed = [name for name in names if getattr(self, name) != getattr(other, name)]
        return ["recordings" if name == "dataset" else name for name in changed]

    def _id(self, *excluded: str) -> str:
        # So that runs without them keep their identity.
        absent = [name for name in ("losses", "freeze_encoder") if not getattr(self, name)]
        return content_id(self.model_dump(mode="json", exclude={*self.NOT_IDENTITY, *absent, *excluded}))

    @property
    def folder(self) -> RunFolder:
        """The run's folder in the store."""
        return RunFolder.of(self.library, self.instrument, self.run_id)

    @property
    def run_key(self) -> str:
        """The key of the run's folder."""
        return str(self.folder.root)


class Validation(Record):
    """Held-out spectral distances: before the first step, of the weights to export, and the last one."""

    first: float | None = None
    best: float | None = None
    last: float | None = None


class Rollback(Record):
    """A return to the last checkpoint: the step (from 0) of the NaN or infinite value, its kind, and the factor on the rate."""

    step: int
    what: str
    rate: float


class RunRecord(Record):
    """The progress of one instrument; ``runs/<library>/<instrument>/record.json``, rewritten during the run.

    ``activity`` is its present activity, None if no process is known to work on it; ``waits_for`` says what a waiting run
    waits for. ``worker`` is host:pid of the last training process, ``attempt`` its random name, ``threads`` its CPU threads
    and ``device`` its device; on a GPU ``gpu_share`` is its fraction of it and ``gpu_bytes`` the memory that it holds;
    of several ``workers`` it is the first one. ``retries`` says how often the last command restarted the run. ``curve`` has
    steps and held-out distances.
    ``seconds`` is training time, of ``budget``; ``expected_seconds`` is what was expected of the whole run at its start.
    ``verdict`` is that of the published ``model``. ``outdated`` is never stored: what has changed since in manifest and
    recordings.
    """

    library: str
    instrument: str
    run_id: str
    dataset: str
    state: RunStatus = "waiting"
    activity: RunActivity | None = None
    phase: int = 1
    step: int = 0
    steps: int = 0
    phase_1_steps: int = 0
    validation: Validation = Validation()
    train_distance: float | None = None
    steps_per_second: float | None = None
    budget: Budget | None = None
    model: str | None = None
    verdict: Verdict | None = None
    error: Problem | None = None
    rollbacks: tuple[Rollback, ...] = ()
    seconds: float = 0.0
    expected_seconds: float | None = None
    worker: str | None = None
    attempt: str = ""
    threads: int | None = None
    workers: int = 1
    device: str = ""
    gpu_share: float = 0.0
    gpu_bytes: int = 0
    retries: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    waits_for: str = ""
    updated_at: str = Field(default_factory=now)
    outdated: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of this record in the store."""
        return run_record_key(self.library, self.instrument)

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder.of(self.library, self.instrument, self.run_id)

    def threads_with(self, workers: int) -> int | None:
        """The CPU threads of each worker that the run began with, on which its rounding depends; None before its first step."""
        return self.threads if self.workers == workers else None

    def curve_with(self, step: int, distance: float) -> tuple[tuple[int, float], ...]:
        """The curve with one more validation, without later ones; every other point is dropped where they become too many."""
        earlier = tuple(point for point in self.curve if point[0] < step)
        if len(earlier) >= CURVE_POINTS:
            earlier = earlier[::-2][::-1]
        return (*earlier, (step, distance))

    def summary(self) -> dict[str, Any]:
        """The instrument's entry in the documents of ``rave-dist train``, ``run`` and ``status``."""
        return {"name": self.instrument, **self.to_json()}


def run_record_key(library: str, instrument: str) -> str:
    """The key of an instrument's current run record."""
    return f"runs/{library}/{instrument}/record.json"
