"""Published models in the store, found by name, fetched by hash.

Files are named by `rave_dist.records.ModelFolder`. A version is the hash of the weights and the configuration, so publishing
a run again changes nothing, and a version never changes. A version without a card was left by a publisher that died: its
files are checked and used, or replaced.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rave_dist.dataset.read import load_manifest, read_segments
from rave_dist.dataset.split import split_dataset
from rave_dist.errors import DamagedObjectError, MissingKeyError, ModelNotFoundError, TrainingError, VerificationError
from rave_dist.identity import ID_LENGTH, canonical_json, hash_file
from rave_dist.rave.engine import installed_engine
from rave_dist.rave.presets import FIDELITY
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import (
    DatasetManifest,
    ExportKind,
    ExportRecord,
    Metrics,
    ModelCard,
    ModelFile,
    ModelFolder,
    ModelPointer,
    RunActivity,
    RunFolder,
    RunResult,
    SourceRecord,
    TrainingSpec,
    now,
)
from rave_dist.registry.export import check_export, export_further, export_run
from rave_dist.registry.files import PUBLISH_AGAIN
from rave_dist.registry.files import fetch as fetch
from rave_dist.storage.store import Store
from rave_dist.suggest import suggest

_KINDS: tuple[ExportKind, ...] = ("offline", "streaming")
_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62})(@(?P<version>[0-9a-f]{1,64}|latest))?")
# A model has learnt if its validation distance is below this fraction of its first value.
_LEARNT = 0.9
_PROBE_SECONDS = 4.0
_SHORT_SECONDS = 600.0
_CARD = ModelFolder("", "").card


# ---------------------------------------------------------------- publishing


def publish(
    store: Store,
    spec: TrainingSpec,
    report: Callable[[RunActivity], None] = lambda activity: None,
    *,
    fidelity: float = FIDELITY,
) -> ModelCard:
    """Exports a finished run, checks the files and publishes them under the instrument's name.

    Args:
        store: for the run and the model.
        spec: the run; its result must be in its folder.
        report: called with each activity when it starts: exporting, measuring.
        fidelity: share of the latent variance that the exports keep.

    Returns:
        The card; of the existing version, if the same weights were published before.

    Raises:
        TrainingError: the run has not finished.
        VerificationError: the export differs from the model.
        DatasetError: the run's dataset is not in the store.
    """
    try:
        result = RunResult.load(store, spec.folder.result)
    except MissingKeyError as error:
        raise TrainingError("this run has not finished", where=store.address(spec.run_key), fix="train it first") from error
    with tempfile.TemporaryDirectory(prefix="rave-dist-export-") as folder:
        run, out = RunFolder(Path(folder) / "run"), Path(folder) / "out"
        store.download(spec.folder.config, run.config)
        store.download(spec.folder.weights, run.weights)
        version = model_version(run)
        card = _card(store, ModelFolder.of(spec.instrument, version))
        if card is None:
            if result.phase_1 is not None:
                store.download(spec.folder.weights_phase_1, run.weights_phase_1)
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
            metrics = _metrics(store, spec, dataset, out, exported) if sounds else {}
            seconds = dataset.used_seconds
            return place(store, spec, result, exported, out, version=version, seconds=seconds, metrics=metrics, further=further)
    _point_latest(store, card)
    return card


def place(
    store: Store,
    spec: TrainingSpec,
    result: RunResult,
    exported: ExportRecord,
    out: Path,
    *,
    version: str,
    seconds: float,
    metrics: Mapping[str, Metrics] = MappingProxyType({}),
    further: Mapping[str, Path] = MappingProxyType({}),
) -> ModelCard:
    """Adds an export to the registry: its files, then its card, then ``latest``.

    Args:
        store: of the registry.
        spec: the run.
        result: of the run.
        exported: the record of ``out``.
        out: the export's folder.
        version: from `model_version`.
        seconds: audio that the model was trained on.
        metrics: from `rave_dist.registry.metrics`.
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
        credit=spec.credit,
        files=_place_files(store, folder, out, exported),
        exports={name: _place_further(store, folder, path) for name, path in further.items()},
        created_at=now(),
    )
    if not store.claim(folder.card, canonical_json(card.to_json()) + b"\n"):
        stored = ModelCard.find(store, folder.card)
        if stored is None:  # cut when its publisher died
            card.save(store, folder.card)
        card = stored or card
    _point_latest(store, card)
    return card


def model_version(run: RunFolder) -> str:
    """The version of a run folder's model: a hash of its weights (names, types, shapes, bytes) and its configuration."""
    import torch

    weights: dict[str, Any] = torch.load(run.weights, map_location="cpu", weights_only=True)
    digest = hashlib.sha256(Path(run.config).read_bytes())
    for name, tensor in sorted(weights.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:ID_LENGTH]


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
    segments = read_segments(store, dataset.model_copy(update={"sources": tuple(chosen), "shards": tuple(shards)}))
    pcm = np.concatenate([segment.pcm for segment in segments], axis=1)
    return pcm[:, : int(_PROBE_SECONDS * dataset.sample_rate)].astype(np.float32) / np.float32(32768)


def _metrics(
    store: Store, spec: TrainingSpec, dataset: DatasetManifest, out: Path, exported: ExportRecord
) -> dict[str, Metrics]:
    """The metrics of the offline exports on all held-out audio."""
    from rave_dist.registry.metrics import measure_export  # imported here: only publishing needs scipy, FFmpeg and torch

    held_out = split_dataset(store, dataset, window=StepConfig.of(spec).window).validation
    return measure_export(out, exported, held_out, sample_rate=spec.sample_rate, further=spec.metrics)


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
    with tempfile.TemporaryDirectory(prefix="rave-dist-found-") as scratch:
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


def _point_latest(store: Store, card: ModelCard) -> None:
    """Moves ``latest`` to a card, unless it points to a newer one."""
    latest = _latest(store, card.name)
    if latest is None or (latest.version != card.version and latest.created_at <= card.created_at):
        ModelPointer(version=card.version).save(store, ModelFolder.latest(card.name))


# ---------------------------------------------------------------- finding


def list_models(store: Store, on_invalid: Callable[[DamagedObjectError], None] = lambda error: None) -> list[ModelCard]:
    """All published versions, by name and age.

    Args:
        store: of the models.
        on_invalid: called with the error of each card that is not valid; the others are listed.
    """
    return _cards(store, ModelFolder.versions(), on_invalid)


def find(store: Store, reference: str) -> ModelCard:
    """A model by NAME (its latest version), NAME@VERSION, or NAME@ and the beginning of one version.

    Raises:
        ModelNotFoundError: no such model or version, with the nearest name.
        DamagedObjectError: its card is not valid.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelNotFoundError(f"{reference!r} is not a model", where=store.uri, fix=_suggest_model(store, reference))
    name, version = match["name"], match["version"] or "latest"
    card = _latest(store, name) if version == "latest" else _card(store, ModelFolder.of(name, version))
    if card is not None:
        return card
    damaged: list[DamagedObjectError] = []
    cards = _cards(store, ModelFolder.versions(name), damaged.append)
    begins = [card for card in cards if card.version.startswith(version)]
    if damaged and not (begins or (cards and version == "latest")):
        raise damaged[0]
    if not cards:
        raise ModelNotFoundError(f"no model is called {name!r}", where=store.uri, fix=_suggest_model(store, name))
    if version == "latest":  # the publisher died before writing ``latest``: use the newest
        return cards[-1]
    if len(begins) == 1:
        return begins[0]
    raise ModelNotFoundError(
        f"{len(begins) or 'no'} versions of {name} begin with {version!r}",
        where=store.uri,
        fix=f"one of: {', '.join(card.reference for card in begins or cards)}",
    )


def fetch_run(store: Store, card: ModelCard, *, folder: Path) -> RunFolder:
    """Local copies of the configuration and the weights of the run that a model was exported from.

    Args:
        store: of the run.
        card: the model's card.
        folder: target folder; created if necessary.

    Raises:
        ModelNotFoundError: the run no longer exists, or has been trained further since.
    """
    run = RunFolder(folder)
    try:
        store.download(card.run_folder.config, run.config)
        store.download(card.run_folder.weights, run.weights)
    except MissingKeyError as error:
        raise ModelNotFoundError(
            f"the run of {card.reference} is not in this store", where=error.where, fix=f"train {card.name} again"
        ) from error
    if model_version(run) != card.version:
        raise ModelNotFoundError(
            f"the run of {card.reference} has been trained further since",
            where=store.address(card.run_key),
            fix=f"publish it, and use {card.name}",
        )
    return run


def _card(store: Store, folder: ModelFolder) -> ModelCard | None:
    try:
        return _read_card(store, folder.card)
    except (MissingKeyError, DamagedObjectError):
        return None


def _read_card(store: Store, key: str) -> ModelCard:
    """A card under the key that its name and version give it."""
    card = ModelCard.load(store, key)
    if card.folder.card != key:
        raise DamagedObjectError(
            f"this card is of {card.reference}, not of its folder", where=store.address(key), fix=PUBLISH_AGAIN
        )
    return card


def _cards(store: Store, prefix: str, on_invalid: Callable[[DamagedObjectError], None] = lambda error: None) -> list[ModelCard]:
    cards = []
    for entry in store.list(prefix):
        if entry.key.endswith(_CARD):
            try:
                cards.append(_read_card(store, entry.key))
            except MissingKeyError:
                continue  # removed since
            except DamagedObjectError as error:
                on_invalid(error)
    return sorted(cards, key=lambda card: (card.name, card.created_at, card.version))


def _latest(store: Store, name: str) -> ModelCard | None:
    pointer = ModelPointer.find(store, ModelFolder.latest(name))
    return None if pointer is None else _card(store, ModelFolder.of(name, pointer.version))


def _suggest_model(store: Store, name: str) -> str:
    names = sorted({card.name for card in list_models(store)})
    return suggest(name, names) or "train and publish one first"
