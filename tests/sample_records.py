"""Complete records for tests, which name only the values that they are about."""

from __future__ import annotations

from typing import Any, TypeVar

from rave_dist.options import Budget
from rave_dist.records import (
    DatasetManifest,
    DryRunResult,
    Engine,
    ModelCard,
    Record,
    RunRecord,
    SourceRecord,
    TrainingSpec,
    Validation,
)

R = TypeVar("R", bound=Record)

ID = "0" * 12
MOMENT = "2026-01-01T00:00:00+00:00"


def source_record(**values: Any) -> SourceRecord:
    """Six seconds of mono, all used."""
    return _complete(
        SourceRecord,
        values,
        source="/recordings/take.wav",
        seconds=6.0,
        used_seconds=6.0,
        sample_rate=44100,
        channels=1,
        format="WAV",
        samples=264600,
        spans=((0, 264600),),
        source_id="take",
        fingerprint="1-2",
        pcm_sha256="0" * 64,
        peak=0.5,
        rms=0.1,
        dc=0.0,
        clipped_samples=0,
    )


def dataset_manifest(**values: Any) -> DatasetManifest:
    """A dataset of one recording, without shards."""
    return _complete(
        DatasetManifest,
        values,
        id=ID,
        instrument="tabla",
        sample_rate=44100,
        channels=1,
        sources=(source_record(),),
        rejected=(),
        shards=(),
        used_seconds=6.0,
        created_at=MOMENT,
    )


def training_spec(**values: Any) -> TrainingSpec:
    """A short run of a model small enough to be trained in a test."""
    return _complete(
        TrainingSpec,
        values,
        library="band",
        instrument="tabla",
        dataset=ID,
        config=("v2_small",),
        override={"CAPACITY": 4, "LATENT_SIZE": 8},
        sample_rate=44100,
        channels=1,
        window=40960,
        batch=2,
        budget=Budget(steps=10),
        seed=3,
    )


def run_record(**values: Any) -> RunRecord:
    """An instrument that waits for its run."""
    return _complete(RunRecord, values, library="band", instrument="tabla", run_id=ID, dataset=ID)


def dry_run_result(spec: TrainingSpec, name: str = "", **values: Any) -> DryRunResult:
    """A dry run of a run's step on an H100, which used 20 GiB of it and 3 GiB of its host."""
    return _complete(
        DryRunResult,
        values,
        id=f"{spec.step_id}-{name}-{80 << 30}",
        instrument=spec.instrument,
        device="NVIDIA H100 80GB HBM3",
        accumulation_steps=1,
        limit_bytes=80 << 30,
        device_bytes=20 << 30,
        host_bytes=3 << 30,
        cpus=1.2,
        at=MOMENT,
    )


def model_card(**values: Any) -> ModelCard:
    """A model of a finished run, without files."""
    return _complete(
        ModelCard,
        values,
        name="tabla",
        version=ID,
        library="band",
        run_id=ID,
        engine=Engine(name="acids-rave", version="2.3.1", licence="CC BY-NC 4.0"),
        config=("v2_small",),
        sample_rate=44100,
        channels=1,
        latents=4,
        latent_size=8,
        hop=512,
        receptive_field=(10602, 10044),
        phase=2,
        step=10,
        steps=10,
        complete=True,
        dataset=ID,
        seconds=6.0,
        validation=Validation(first=20.0, best=9.0, last=9.5),
        files={},
        created_at=MOMENT,
    )


def _complete(kind: type[R], values: dict[str, Any], /, **defaults: Any) -> R:
    """A record of these values; a name that the record does not have is a mistake of the test."""
    assert values.keys() <= kind.model_fields.keys(), values.keys() - kind.model_fields.keys()
    return kind.model_validate(defaults | values)
