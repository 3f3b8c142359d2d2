"""The records that stages leave in the store for one another: frozen, JSON on disk, no torch, no Ray.

::

    sources ──> dataset ──> training ──> registry ──> conversion / serving ──> report
           DatasetManifest  RunRecord    ModelCard    ConversionRecord
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rave_dist.errors import RaveDistError
from rave_dist.identity import content_id
from rave_dist.options import STOCK_AUGMENTATIONS, Augmentation, Budget, CheckpointPolicy, ComputeOption, Recovery

RunStatus = Literal["waiting", "running", "done", "failed"]


def now() -> str:
    """The present moment as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Record(BaseModel):
    """Base of all records: frozen; keys that a newer version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json")


# ---------------------------------------------------------------- training plan


class TrainingSpec(Record):
    """All that decides what one run computes, plus when it saves itself and what it does after a failure.

    ``window`` (samples) and ``batch`` are None where the configuration's own default holds; ``auto`` is that batch too, in as
    many parts as the memory needs. ``base`` is the id of what it starts from, kept at ``bases/<id>``; None for new weights.
    ``augment`` has the probability of each augmentation, ``compute`` the options of arithmetic and speed
    (`rave_dist.training.step.precision`).
    """

    library: str
    instrument: str
    dataset: str
    config: tuple[str, ...]
    override: dict[str, Any] = {}
    sample_rate: int
    channels: int
    window: int | None = None
    batch: int | Literal["auto"] | None = None
    budget: Budget
    seed: int
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    recover: Recovery | None = None
    credit: dict[str, str] = {}
    base: str | None = None
    augment: dict[Augmentation, float] = STOCK_AUGMENTATIONS
    compute: tuple[ComputeOption, ...] = ()

    @property
    def run_id(self) -> str:
        """Hash of what affects the result: not of the checkpoint policy, not of the credit, and not of the recovery, which
        changes nothing for runs that need none and must find the checkpoints of those that do."""
        return content_id(self.model_dump(mode="json", exclude={"checkpoint", "recover", "credit"}))

    @property
    def run_key(self) -> str:
        """Where this run lies in the store."""
        return f"runs/{self.library}/{self.instrument}/{self.run_id}"


# ---------------------------------------------------------------- dataset


class Rejection(Record):
    """Seconds of a source that are not used, and why; ``unreadable`` when the file itself is damaged or no audio."""

    source: str
    seconds: float
    reason: str
    unreadable: bool = False


class SourceRecord(Record):
    """One recording as it was ingested. Levels are of the mapped, resampled PCM, full scale = 1.

    ``used_seconds`` plus the seconds of its rejections is ``seconds``. ``spans`` are the used stretches as
    [start, stop) in samples at the dataset's rate; the PCM rows of a span are contiguous.
    """

    source: str
    source_id: str
    fingerprint: str
    seconds: float
    used_seconds: float
    sample_rate: int
    channels: int
    format: str
    samples: int
    spans: tuple[tuple[int, int], ...]
    pcm_sha256: str
    peak: float
    rms: float
    dc: float
    clipped_samples: int
    warnings: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()


class Shard(Record):
    """One Parquet file of PCM segments; its key is relative to the store."""

    key: str
    source_ids: tuple[str, ...]
    bytes: int
    seconds: float


class DatasetManifest(Record):
    """A dataset: which recordings, where their PCM lies, and every second accounted for.

    ``sources`` are the recordings of which something is used, ``unused`` those that could be opened and are rejected whole
    (kept so that they need not be read again), ``rejected`` every second that is not used, of both. ``recipe`` is the id of
    the parameters that made it.
    """

    id: str
    instrument: str
    sample_rate: int
    channels: int
    sources: tuple[SourceRecord, ...]
    rejected: tuple[Rejection, ...]
    shards: tuple[Shard, ...]
    used_seconds: float
    credit: dict[str, str] = {}
    recipe: str = ""
    unused: tuple[SourceRecord, ...] = ()
    created_at: str

    @property
    def key(self) -> str:
        """Where this dataset lies in the store."""
        return dataset_key(self.instrument, self.id)

    @property
    def seconds(self) -> float:
        """All source seconds, used and rejected."""
        return self.used_seconds + sum(r.seconds for r in self.rejected)


def dataset_key(instrument: str, dataset_id: str) -> str:
    """The folder of a dataset in the store; ``manifest.json`` in it is its done marker."""
    return f"datasets/{instrument}/{dataset_id}"


# ---------------------------------------------------------------- run


class Validation(Record):
    """Held-out spectral distance: before the first step, of the weights that an export takes, the last one."""

    first: float | None = None
    best: float | None = None
    last: float | None = None


class Problem(Record):
    """What is wrong and the smallest fix."""

    what: str
    fix: str = ""

    @staticmethod
    def of(error: RaveDistError) -> Problem:
        """An error as a record keeps it: place and message in one sentence, and the fix."""
        return Problem(what=f"{error.where}: {error.what}" if error.where else error.what, fix=error.fix)


class Setback(Record):
    """A value that was not finite, the number of the step (from 0) that made it, and the factor on the learning rate with which
    the run then went on from its last checkpoint."""

    step: int
    what: str
    rate: float


class RunRecord(Record):
    """How far one instrument has come; ``runs/<library>/<instrument>/record.json``, rewritten as it goes.

    ``worker`` is host:pid of the process that trains or trained it.
    """

    library: str
    instrument: str
    run_id: str
    dataset: str
    state: RunStatus = "waiting"
    phase: int = 1
    step: int = 0
    steps: int = 0
    phase_1_steps: int = 0
    validation: Validation = Validation()
    train_distance: float | None = None
    steps_per_second: float | None = None
    model: str | None = None
    error: Problem | None = None
    setbacks: tuple[Setback, ...] = ()
    seconds: float = 0.0
    worker: str | None = None
    updated_at: str = Field(default_factory=now)

    @property
    def key(self) -> str:
        """Where this record lies in the store."""
        return run_record_key(self.library, self.instrument)

    def summary(self) -> dict[str, Any]:
        """The instrument's entry in the documents of ``rave-dist train``, ``run`` and ``status``."""
        return {"name": self.instrument, **self.to_json()}


def run_record_key(library: str, instrument: str) -> str:
    """The key of an instrument's current run record."""
    return f"runs/{library}/{instrument}/record.json"


# ---------------------------------------------------------------- model


class ModelFile(Record):
    """One published file; its key is relative to the store."""

    key: str
    sha256: str
    bytes: int


class Metrics(Record):
    """How far a sound is from held-out audio: spectra in dB over five window lengths and over mel bands, momentary loudness in
    LU, pitch in cents where both have one, the share of pitch that is left; the last two are None where there is no pitch."""

    spectral_db: float
    mel_db: float
    loudness_lu: float
    pitch_cents: float | None = None
    pitch_kept: float | None = None
    seconds: float


class ModelCard(Record):
    """A published model. ``version`` is the hash of its weights and configuration; a version never changes.

    ``hop`` is the number of samples per latent frame; ``receptive_field`` is (left, right) in samples;
    ``latents`` is how many the exports expose, ``latent_size`` how many the network has; ``seconds`` is the
    audio that it was trained on; ``complete`` is False when its run was cut before its budget was spent. The weights are those
    after ``best_step`` of the ``step`` steps that the run did, the closest to held-out audio of their phase. Every step was
    computed in ``accumulation_steps`` parts, one unless the manifest said ``batch: auto``.
    ``metrics`` are those of the ``model``, and next to it of an ``mp3`` at 64 kbit/s, of ``noise`` of equal loudness and of
    ``silence``; of a model of phase 2 also of what the best weights of ``phase_1`` give, unless its run began after that.
    """

    name: str
    version: str
    library: str
    run_id: str
    config: tuple[str, ...]
    override: dict[str, Any] = {}
    sample_rate: int
    channels: int
    latents: int
    latent_size: int
    hop: int
    receptive_field: tuple[int, int]
    phase: int
    step: int
    best_step: int | None = None
    steps: int
    complete: bool
    dataset: str
    seconds: float
    validation: Validation
    metrics: dict[str, Metrics] = {}
    setbacks: tuple[Setback, ...] = ()
    accumulation_steps: int = 1
    credit: dict[str, str] = {}
    files: dict[Literal["offline", "streaming"], ModelFile]
    created_at: str

    def __hash__(self) -> int:
        return hash(self.reference)

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def key(self) -> str:
        """Where this model lies in the store."""
        return f"models/{self.name}/{self.version}"

    @property
    def run_key(self) -> str:
        """Where the run that it was made of lies in the store."""
        return f"runs/{self.library}/{self.name}/{self.run_id}"

    def summary(self, store_uri: str) -> dict[str, Any]:
        """The model's entry in the documents of ``rave-dist models`` and of the service; ``files`` are full addresses."""
        keys = ("name", "version", "config", "sample_rate", "channels", "latents", "phase", "step", "seconds")
        more = ("steps", "complete", "hop", "library", "validation", "metrics", "credit", "created_at")
        document = self.to_json()
        files = {kind: f"{store_uri}/{file.key}" for kind, file in self.files.items()}
        return {**{key: document[key] for key in (*keys, *more)}, "files": files}


# ---------------------------------------------------------------- conversion


class ConversionParameters(Record):
    """All that decides the samples of a conversion.

    ``sample_rate`` and ``channels`` None mean the source's own. ``seed`` picks the noise of models that have a noise
    generator. ``salvage`` converts what can be read of a damaged file.
    """

    sample_rate: int | None = None
    channels: int | None = None
    format: Literal["flac", "wav"] = "flac"
    seed: int = 0
    salvage: bool = False


class ConversionItem(Record):
    """What became of one source; the journal's entry. ``seconds`` is the length of what was written; ``source_fingerprint``
    and ``output_tag`` tell, without reading them, that neither file has changed since."""

    source: str
    source_sha256: str
    source_fingerprint: str = ""
    output: str
    output_sha256: str | None = None
    output_tag: str = ""
    state: Literal["converted", "failed", "salvaged"]
    reason: str | None = None
    seconds: float = 0.0
    clipped_samples: int = 0


class ConversionRecord(Record):
    """A whole conversion, as reported at its end. ``seconds`` is audio converted this time."""

    id: str
    model: str
    parameters: ConversionParameters
    converted: int
    skipped: int
    failed: tuple[ConversionItem, ...]
    salvaged: tuple[ConversionItem, ...] = ()
    seconds: float
    created_at: str
