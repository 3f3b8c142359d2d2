"""The records of a store by their keys, and the files that each of them names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rave_dist.records import (
    BaseFolder,
    BaseRecord,
    CheckpointInfo,
    ConversionItem,
    ConversionRecord,
    ConversionRequest,
    DatasetFolder,
    DatasetManifest,
    DatasetPointer,
    DryRunResult,
    LeaseRecord,
    ListeningRecord,
    ModelCard,
    ModelFolder,
    NotFiniteReport,
    Publication,
    Record,
    RunFolder,
    RunMetrics,
    RunRecord,
    RunResult,
    TrainingSpec,
    UploadedRecordings,
)

_INGEST = "delete it and run rave-dist ingest, which writes it again"
_TRAIN = "delete the run's result.json and run rave-dist train, which writes it again from the last checkpoint"
_CHECKPOINT = "delete this checkpoint: training resumes from the one before"
_PUBLISH = "delete the version's folder and run rave-dist publish"
_SUBMIT = "run rave-dist submit again on the machine that has the recordings"
_REPORT = "delete the folder of samples and run rave-dist report"


@dataclass(frozen=True)
class Reference:
    """A file that a record names.

    Attributes:
        key: of the file.
        owner: key of the record.
        fix: what to do if it is missing or damaged.
        bytes: its size; None if the record does not say.
        sha256: of its bytes, or the beginning; empty if the record does not say.
        is_archive: whether it is a zip archive, which has a checksum for each part.
    """

    key: str
    owner: str
    fix: str
    bytes: int | None = None
    sha256: str = ""
    is_archive: bool = False


@dataclass(frozen=True)
class Kind:
    """The records whose keys match a pattern; ``type`` is None if only JSON is required of them."""

    pattern: re.Pattern[str]
    type: type[Record] | None
    fix: str
    references: Callable[[str, Any], Iterator[Reference]]


def kind_of(key: str) -> Kind | None:
    """The kind of record that has this key; None for other files."""
    return next((kind for kind in _KINDS if kind.pattern.fullmatch(key)), None)


def _nothing(key: str, record: Any) -> Iterator[Reference]:
    return iter(())


def _of_pointer(key: str, pointer: DatasetPointer) -> Iterator[Reference]:
    yield Reference(
        DatasetFolder.of(key.split("/")[1], pointer.id).manifest, key, "run rave-dist ingest, which writes it again"
    )


def _of_manifest(key: str, manifest: DatasetManifest) -> Iterator[Reference]:
    for shard in manifest.shards:
        yield Reference(shard.key, key, _INGEST, shard.bytes, PurePosixPath(shard.key).stem.removeprefix("shard-"))


def _of_result(key: str, result: RunResult) -> Iterator[Reference]:
    run = RunFolder(_folder(key))
    yield Reference(run.spec, key, _TRAIN)
    yield Reference(run.config, key, _TRAIN)
    yield Reference(run.weights, key, _TRAIN, is_archive=True)
    if result.phase_1 is not None:
        yield Reference(run.weights_phase_1, key, _TRAIN, is_archive=True)


def _of_checkpoint(key: str, info: CheckpointInfo) -> Iterator[Reference]:
    yield Reference(f"{key.removesuffix('.json')}.pt", key, _CHECKPOINT, info.bytes, info.sha256)


def _of_card(key: str, card: ModelCard) -> Iterator[Reference]:
    for file in (*card.files.values(), *card.exports.values()):
        yield Reference(file.key, key, _PUBLISH, file.bytes, file.sha256)


def _of_record(key: str, record: RunRecord) -> Iterator[Reference]:
    if record.model:
        name, _, version = record.model.rpartition("@")
        yield Reference(ModelFolder.of(name, version).card, key, _PUBLISH)


def _of_samples(key: str, record: ListeningRecord) -> Iterator[Reference]:
    for role in ("original", "reconstruction", "transfer"):
        yield Reference(f"{_folder(key)}/{role}.flac", key, _REPORT)


def _of_uploads(key: str, uploads: UploadedRecordings) -> Iterator[Reference]:
    for recording in uploads.recordings:
        yield Reference(recording.key, key, _SUBMIT, recording.bytes, recording.sha256)


def _of_base(key: str, record: BaseRecord) -> Iterator[Reference]:
    base = BaseFolder(_folder(key))
    fix = "delete its base.json and run rave-dist train, which writes it again"
    yield Reference(base.config, key, fix)
    yield Reference(base.weights, key, fix, is_archive=True)
    if record.step:
        yield Reference(base.optimizers, key, fix, is_archive=True)


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _kind(
    pattern: str,
    record: type[Record] | None,
    fix: str,
    references: Callable[[str, Any], Iterator[Reference]] = _nothing,
) -> Kind:
    return Kind(re.compile(pattern.replace("*", r"[^/.][^/]*")), record, fix, references)  # hidden files are of other programs


_KINDS = (
    _kind(r"datasets/*/latest/*\.json", DatasetPointer, _INGEST, _of_pointer),
    _kind(r"datasets/*/*/manifest\.json", DatasetManifest, _INGEST, _of_manifest),
    _kind(r"runs/*/*/record\.json", RunRecord, "run rave-dist train, which writes it again", _of_record),
    _kind(r"runs/*/*/*/spec\.json", TrainingSpec, "run rave-dist train, which writes it again"),
    _kind(r"runs/*/*/*/result\.json", RunResult, _TRAIN, _of_result),
    _kind(r"runs/*/*/*/metrics\.json", RunMetrics, "delete it; the page is written without these curves"),
    _kind(r"runs/*/*/*/not_finite\.json", NotFiniteReport, "delete it"),
    _kind(r"runs/*/*/*/checkpoints/*\.json", CheckpointInfo, _CHECKPOINT, _of_checkpoint),
    _kind(r"bases/*/base\.json", BaseRecord, "delete it and run rave-dist train, which writes it again", _of_base),
    _kind(r"models/*/*/card\.json", ModelCard, _PUBLISH, _of_card),
    _kind(r"models/*/publications/*\.json", Publication, "delete it"),
    _kind(r"leases/libraries/*/*\.json", LeaseRecord, "delete it, if no command is at work"),
    _kind(r"leases/store/*\.json", LeaseRecord, "delete it, if no command is at work"),
    _kind(r"models/*/*/samples/samples\.json", ListeningRecord, _REPORT, _of_samples),
    _kind(r"conversions/*/request\.json", ConversionRequest, "delete it; the next conversion writes it again"),
    _kind(r"conversions/*/record\.json", ConversionRecord, "delete it; the next conversion writes it again"),
    _kind(r"conversions/*/journal/*\.json", ConversionItem, "delete it; the next conversion repeats this recording"),
    _kind(r"dry_runs/*\.json", DryRunResult, "delete it; the next training repeats the dry run"),
    _kind(r"recordings/listings/*/*\.json", UploadedRecordings, _SUBMIT, _of_uploads),
    _kind(r"jobs/*\.json", None, "delete it and request the job again"),
)
