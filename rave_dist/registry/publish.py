"""Publishing runs: export, verification, and a numbered place in the order of publications.

A version is the hash of the weights and the configuration, so publishing a run again changes nothing but its attribution. A
version without a card was left by a publisher that died: its files are checked and used, or replaced.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rave_dist.dataset.read import load_manifest, outline, read_segments
from rave_dist.dataset.split import read_held_out, split
from rave_dist.errors import MissingKeyError, TrainingError, VerificationError
from rave_dist.identity import canonical_json, hash_file
from rave_dist.rave.engine import installed_engine
from rave_dist.rave.presets import FIDELITY
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import (
    DatasetManifest,
    ExportKind,
    ExportRecord,
    FamiliarityReference,
    Metrics,
    ModelCard,
    ModelFile,
    ModelFolder,
    NamedLatent,
    RunActivity,
    RunFolder,
    RunResult,
    SourceRecord,
    TrainingSpec,
    now,
)
from rave_dist.registry.export import check_export, export_further, export_run
from rave_dist.registry.publications import announce, refresh_credit
from rave_dist.registry.store import encoder_version, find_card, model_version
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

_KINDS: tuple[ExportKind, ...] = ("offline", "streaming")
# A model has learnt if its validation distance is below this fraction of its first value.
_LEARNT = 0.9
_PROBE_SECONDS = 4.0
_SHORT_SECONDS = 600.0


def publish(
    store: Store,
    spec: TrainingSpec,
    report: Callable[[RunActivity], None] = lambda activity: None,
    *,
    outputs: Store | None = None,
    fidelity: float = FIDELITY,
) -> ModelCard:
    """Exports a finished run, checks the files and publishes them under the instrument's name.

    Args:
        store: for the run and the model.
        spec: the run; its result must be in its folder.
        report: called with each activity when it starts: exporting, measuring.
        outputs: where the run's result and weights are; None for the store.
        fidelity: share of the latent variance that the exports keep.

    Returns:
        The card; of the existing version, with the present attribution, if the same weights were published before.

    Raises:
        TrainingError: the run has not finished.
        VerificationError: the export differs from the model.
        InsufficientMemoryError: the system killed the export's process.
        DatasetError: the run's dataset is not in the store.
        DamagedObjectError: the run's weights are damaged.
    """
    outputs = outputs or store
    try:
        result = RunResult.load(outputs, spec.folder.result)
    except MissingKeyError as error:
        raise TrainingError("this run has not finished", where=store.address(spec.run_key), fix="train it first") from error
    with temporary_folder("export") as folder:
        run, out = RunFolder(Path(folder) / "run"), Path(folder) / "out"
        store.download(spec.folder.config, run.config)
        outputs.download(spec.folder.weights, run.weights)
        version = model_version(run, where=outputs.address(spec.folder.weights))
        card = find_card(store, ModelFolder.of(spec.instrument, version))
        if card is None:
            if result.phase_1 is not None:
                outputs.download(spec.folder.weights_phase_1, run.weights_phase_1)
            Path(run.spec).write_bytes(canonical_json(spec.to_json()))
            dataset = load_manifest(store, spec.instrument, spec.dataset)
            sounds = bool(dataset.sources)
            if sounds:
                np.save(run.probe, _material(store, dataset))
            should_sound = sounds and _has_learnt(result)
            report("exporting")
            exported = export_run(Path(run.root), out, name=spec.instrument, fidelity=fidelity, should_sound=should_sound)
            further = export_further(out, exported, spec.exports, name=spec.instrument)
            report("measuring")
            measured: dict[str, Any] = _measured(store, spec, dataset, out, exported) if sounds else {}
            seconds = dataset.used_seconds
            found = {"version": version, "encoder": encoder_version(run, spec), **measured}
            return place(store, spec, result, exported, out, **found, seconds=seconds, further=further)
    return refresh_credit(store, card, spec.credit)


def place(
    store: Store,
    spec: TrainingSpec,
    result: RunResult,
    exported: ExportRecord,
    out: Path,
    *,
    version: str,
    encoder: str = "",
    seconds: float,
    metrics: Mapping[str, Metrics] = MappingProxyType({}),
    familiarity: FamiliarityReference | None = None,
    named_latents: Mapping[str, NamedLatent] = MappingProxyType({}),
    further: Mapping[str, Path] = MappingProxyType({}),
) -> ModelCard:
    """Adds an export to the registry: its files, its number in the order of publications, then its card.

    Args:
        store: of the registry.
        spec: the run.
        result: of the run.
        exported: the record of ``out``.
        out: the export's folder.
        version: from `model_version`.
        encoder: from `encoder_version`.
        seconds: audio that the model was trained on.
        metrics: from `rave_dist.registry.metrics`.
        familiarity: from `rave_dist.registry.familiarity`.
        named_latents: from `rave_dist.registry.named_latents`.
        further: from `rave_dist.registry.export.export_further`.
    """
    folder = ModelFolder.of(spec.instrument, version)
    card = ModelCard(
        name=spec.instrument,
        version=version,
        library=spec.library,
        run_id=spec.run_id,
        engine=installed_engine(),
        config=spec.config,
        override=spec.override,
        sample_rate=spec.sample_rate,
        channels=spec.channels,
        encoder=encoder,
        latents=exported.latents,
        latent_size=exported.latent_size,
        hop=exported.hop,
        receptive_field=exported.receptive_field,
        delay=exported.delay,
        levels=exported.levels,
        phase=result.phase,
        step=result.step,
        best_step=result.best_step,
        rollbacks=result.rollbacks,
        accumulation_steps=result.accumulation_steps,
        steps=result.steps,
        complete=result.complete,
        dataset=spec.dataset,
        seconds=seconds,
        validation=result.validation,
        metrics=dict(metrics),
        familiarity=familiarity,
        named_latents=dict(named_latents),
        credit=spec.credit,
        files=_place_files(store, folder, out, exported),
        exports={name: _place_further(store, folder, path) for name, path in further.items()},
        publication=announce(store, spec.instrument, version),
        created_at=now(),
    )
    if not store.claim(folder.card, canonical_json(card.to_json()) + b"\n"):
        stored = ModelCard.find(store, folder.card)
        if stored is not None:
            return refresh_credit(store, stored, spec.credit)
        card.save(store, folder.card)  # cut when its publisher died
    return card


def _material(store: Store, dataset: DatasetManifest) -> npt.NDArray[np.float32]:
    """Some seconds of training audio, ``[C, T]``, from loud sources that are short enough to read completely."""
    short = [source for source in dataset.sources if source.used_seconds <= _SHORT_SECONDS]
    sources = short or sorted(dataset.sources, key=lambda source: source.used_seconds)[:1]
    chosen: list[SourceRecord] = []
    for source in sorted(sources, key=lambda source: (-source.rms, source.pcm_sha256)):
        if sum(other.used_seconds for other in chosen) < _PROBE_SECONDS:
            chosen.append(source)
    ids = {source.source_id for source in chosen}
    shards = [shard for shard in dataset.shards if ids & set(shard.source_ids)]
    part = dataset.model_copy(update={"sources": tuple(chosen), "shards": tuple(shards)})
    left, segments = int(_PROBE_SECONDS * dataset.sample_rate), []
    for segment in outline(part):
        segments.append(replace(segment, pcm=segment.pcm[:, :left]))
        left -= segments[-1].pcm.shape[1]
    pcm = np.concatenate([segment.pcm for segment in read_segments(store, part, segments)], axis=1)
    return pcm.astype(np.float32) / np.float32(32768)


def _measured(store: Store, spec: TrainingSpec, dataset: DatasetManifest, out: Path, exported: ExportRecord) -> dict[str, Any]:
    """What the card says of the offline exports: metrics, named latents, and what the training audio is like to the model."""
    from rave_dist.registry.familiarity import measure_familiarity, spread
    from rave_dist.registry.metrics import measure_export  # imported here: only publishing needs scipy, FFmpeg and torch
    from rave_dist.registry.named_latents import name_latents

    window, rate = StepConfig.of(spec).window, spec.sample_rate
    held_out = read_held_out(store, dataset, window=window)
    training = spread(split(outline(dataset), sample_rate=rate, window=window).train, rate)
    read = read_segments(store, dataset, training)
    return {
        "metrics": measure_export(out, exported, held_out, sample_rate=rate, further=spec.metrics),
        "familiarity": measure_familiarity(out / exported.offline, read, held_out, hop=exported.hop, sample_rate=rate),
        "named_latents": name_latents(out / exported.offline, held_out, sample_rate=rate, hop=exported.hop),
    }


def _has_learnt(result: RunResult) -> bool:
    validation = result.validation
    first, best = validation.first, validation.last if validation.best is None else validation.best
    return first is not None and best is not None and best <= _LEARNT * first


def _place_files(store: Store, folder: ModelFolder, out: Path, exported: ExportRecord) -> dict[ExportKind, ModelFile]:
    """Stores the exported files and returns the stored export's record.

    Exports of the same weights differ in their bytes, and two publishers must agree on one card that matches the files: files
    that exist stay if they pass the checks.
    """
    local: dict[ExportKind, str] = {"offline": exported.offline, "streaming": exported.streaming}
    keys = {kind: folder.file(kind) for kind in _KINDS}
    files = {kind: _file(keys[kind], out / local[kind]) for kind in _KINDS}
    taken = [kind for kind in _KINDS if not store.claim(keys[kind], (out / local[kind]).read_bytes())]
    if not taken:
        return files
    with temporary_folder("found") as scratch:
        found = Path(shutil.copytree(out, Path(scratch) / "out"))
        theirs = {kind: _file(keys[kind], store.download(keys[kind], found / local[kind])) for kind in taken}
        if all(theirs[kind].sha256 == files[kind].sha256 for kind in taken):
            return files
        try:
            check_export(found)
        except VerificationError:
            for kind in taken:
                store.upload(out / local[kind], keys[kind])
            return files
        return {**files, **theirs}


def _place_further(store: Store, folder: ModelFolder, path: Path) -> ModelFile:
    """Stores a further file; one of another publisher of the same weights, if that came first, stays unless it was cut."""
    key, data = f"{folder.root}/{path.name}", path.read_bytes()
    if not store.claim(key, data):
        stored = store.read_bytes(key)
        if data.startswith(stored):
            store.write_bytes(key, data)
        else:
            path.write_bytes(stored)
    return _file(key, path)


def _file(key: str, path: Path) -> ModelFile:
    return ModelFile(key=key, sha256=hash_file(path), bytes=path.stat().st_size)
