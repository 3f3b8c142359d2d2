"""Records of the registry: published models and their files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, computed_field
from pydantic_core import PydanticCustomError

from rave_dist.records.base import Record
from rave_dist.records.familiarity import FamiliarityReference
from rave_dist.records.folders import ExportKind, ModelFolder, RunFolder
from rave_dist.records.latent_names import NamedLatent
from rave_dist.records.training import Rollback, Validation
from rave_dist.records.verdict import Verdict, verdict_of


def _inside(key: str) -> str:
    """A key that stays inside its store."""
    parts = key.split("/")
    if not key.isprintable() or "" in parts or ".." in parts or "." in parts or PurePosixPath(key).is_absolute():
        raise PydanticCustomError("key", "a key is a path below the store, without '..'")
    return key


# Cards are input: other people's stores hold them, and their names become paths.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_inside)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]


class Engine(Record):
    """The software of a model's network; published models contain its code, so its licence applies to them."""

    name: str
    version: str
    licence: str

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def terms(self) -> str:
        """The licence terms, in plain words."""
        return (
            f"rave-dist is open source (Apache-2.0). Its engine, {self.name} {self.version}, is not: it is licensed "
            f"{self.licence}, for non-commercial use, and published models contain code of it. Ask its authors (IRCAM) before "
            "you sell a model or use it commercially. NOTICE says more; this is not legal advice."
        )


class ModelFile(Record):
    """One published file; its key is relative to the store.

    Readers derive the keys of both TorchScript files from name and version.
    """

    key: Key
    sha256: Sha256
    bytes: int = Field(ge=0)


class Metrics(Record):
    """Distances of audio from held-out audio.

    Spectra in dB over five window lengths and over mel bands; momentary loudness in LU; pitch in cents of frames that are
    voiced in both, and the share of voiced frames that is kept. The last two are None if the held-out audio is not voiced.
    ``peak_dbfs`` is the largest sample of the audio itself as 16-bit files hold it; digital silence is -120.
    ``further`` has the metrics of extensions, by their labels.
    """

    spectral_db: float
    mel_db: float
    loudness_lu: float
    peak_dbfs: float
    pitch_cents: float | None = None
    pitch_kept: float | None = None
    seconds: float
    further: dict[str, float | None] = Field(default_factory=dict)


class PlayedLevels(Record):
    """Levels of the same material, with the default noise: mean power over all channels in dBFS; None for digital zeros."""

    source_db: float | None
    converted_db: float | None
    streaming_db: float | None

    @property
    def line(self) -> str:
        """The three levels in words."""
        named = (("recordings", self.source_db), ("converted", self.converted_db), ("streaming", self.streaming_db))
        return ", ".join(f"{name} {'silent' if level is None else f'{level:.0f} dBFS'}" for name, level in named)


class PastCredit(Record):
    """An attribution that was replaced, and when."""

    credit: dict[str, str]
    until: str


class ModelCard(Record):
    """A published model; a version never changes, except in its attribution.

    Attributes:
        version: hash of weights and configuration.
        engine: the software of its network, with the licence.
        encoder: hash of all that the encoder's output depends on; models with the same one share it. Empty if unknown.
        latents: dimensions that the exports expose.
        latent_size: dimensions of the network's latent space.
        hop: samples per latent frame.
        receptive_field: (left, right) in samples.
        delay: samples by which the streaming file's output lags behind the offline file's.
        levels: of some training material, of its conversion and of the streaming output.
        phase: phase of the weights, 1 or 2.
        step: steps of the run.
        best_step: step of the weights, which have the lowest held-out distance of their phase.
        complete: False when the run was stopped before its budget was used up.
        seconds: duration of the audio that it was trained on.
        metrics: distances from held-out audio of the ``model``, and for comparison of an ``mp3`` at 64 kbit/s, of ``noise`` of
            the same loudness and of ``silence``; for a model of phase 2 also of the best weights of ``phase_1``, unless the run
            began after it.
        familiarity: what its training audio is like, to score other sounds by; None if it was not measured.
        named_latents: by what they follow in held-out audio: loudness, pitch, brightness, noisiness or attack.
        accumulation_steps: parts in which every step was computed; 1 unless the manifest has ``batch: auto``.
        credit: attribution of the recordings, from the manifest; publishing again refreshes it.
        past_credits: earlier attributions, the oldest first.
        exports: further files, in formats of extensions.
        publication: its number in the order of publications, which decides about the latest version.
    """

    name: Name
    version: Version
    library: Name
    run_id: Name
    engine: Engine
    config: tuple[str, ...]
    override: dict[str, Any] = Field(default_factory=dict)
    sample_rate: int = Field(ge=1, le=1_000_000)
    channels: int = Field(ge=1, le=64)
    encoder: str = ""
    latents: Count
    latent_size: Count
    hop: int = Field(ge=1, le=1 << 20)
    receptive_field: tuple[Annotated[int, Field(ge=0, le=1 << 24)], Annotated[int, Field(ge=0, le=1 << 24)]]
    delay: int | None = Field(default=None, ge=0)
    levels: PlayedLevels | None = None
    phase: Count
    step: Count
    best_step: Count | None = None
    steps: Count
    complete: bool
    dataset: Name
    seconds: float
    validation: Validation
    metrics: dict[str, Metrics] = Field(default_factory=dict)
    familiarity: FamiliarityReference | None = None
    named_latents: dict[str, NamedLatent] = Field(default_factory=dict)
    rollbacks: tuple[Rollback, ...] = ()
    accumulation_steps: int = 1
    credit: dict[str, str] = Field(default_factory=dict)
    past_credits: tuple[PastCredit, ...] = ()
    files: dict[ExportKind, ModelFile]
    exports: dict[str, ModelFile] = Field(default_factory=dict)
    publication: int = 0
    created_at: str

    def __hash__(self) -> int:
        return hash(self.reference)

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def verdict(self) -> Verdict | None:
        """How good the model is, by its metrics; None if it was not measured."""
        return verdict_of(self.metrics)

    @property
    def folder(self) -> ModelFolder:
        """The version's folder in the store."""
        return ModelFolder.of(self.name, self.version)

    @property
    def key(self) -> str:
        """The key of the version's folder."""
        return str(self.folder.root)

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run that the model was exported from."""
        return RunFolder.of(self.library, self.name, self.run_id)

    @property
    def run_key(self) -> str:
        """The key of that run's folder."""
        return str(self.run_folder.root)

    def summary(self, store_uri: str) -> dict[str, Any]:
        """The model's entry in the documents of ``rave-dist models`` and of the service; ``files`` are full addresses."""
        keys = ("name", "version", "config", "sample_rate", "channels", "latents", "phase", "step", "seconds")
        more = ("steps", "complete", "hop", "delay", "levels", "library", "validation", "verdict", "metrics", "credit")
        document = self.to_json()
        files = {kind: f"{store_uri}/{self.folder.file(kind)}" for kind in self.files}
        further = {name: f"{store_uri}/{file.key}" for name, file in self.exports.items()}
        return {
            **{key: document[key] for key in (*keys, *more, "past_credits", "engine", "publication", "created_at")},
            "files": {**files, **further},
        }


class Publication(Record):
    """An entry in the order of a model's publications."""

    version: Version
    at: str = ""


class ExportRecord(Record):
    """An export: its files, by their names in the export's folder, and facts of its model.

    ``phase_1`` is the offline export of the best weights of phase 1, of runs that reached phase 2; it is measured and not
    published. ``checks`` are the numbers of the verification.
    """

    offline: str
    streaming: str
    phase_1: str | None = None
    latents: int
    latent_size: int
    hop: int
    receptive_field: tuple[int, int]
    delay: int
    levels: PlayedLevels | None = None
    checks: dict[str, float] = Field(default_factory=dict)


class ListeningRecord(Record):
    """The sources of a model's listening examples.

    ``recipe`` is the version of the code that chose them, ``transfer_source`` the identity of the transfer example's input.
    """

    recipe: int
    model: str
    transfer_source: str
    sources: tuple[str, ...]
    held_out: bool
