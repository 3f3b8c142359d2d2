"""Listening examples: a held-out excerpt of the instrument, its reconstruction, and other audio through the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.write import AudioWriter
from rave_dist.audio.synthesis import trill
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter
from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import read_held_out
from rave_dist.records import DatasetManifest, ListeningRecord, ModelCard
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

EXCERPT_SECONDS = 6.0
ROLES = ("original", "reconstruction", "transfer")
_GAP_SECONDS = 0.15
_FADE_SECONDS = 0.01
_RECIPE = 1  # increase it when the examples of a model would change


@dataclass(frozen=True)
class Excerpt:
    """A few seconds of an instrument.

    ``sound`` is [channels, samples], full scale 1; ``held_out`` is False if the dataset has no held-out audio.
    """

    sound: Audio
    sample_rate: int
    sources: tuple[str, ...]
    held_out: bool = True


@dataclass(frozen=True)
class TransferSource:
    """Audio for the transfer example, unlike that of the model: another instrument's excerpt, or a synthetic call."""

    name: str
    identity: str
    excerpt: Excerpt


@dataclass(frozen=True)
class Examples:
    """The three sounds of a model, by role ([channels, samples] each, at the model's rate), and their sources."""

    sample_rate: int
    sounds: dict[str, Audio]
    sources: tuple[str, ...]
    held_out: bool
    transfer_source: str


def excerpt(store: Store, manifest: DatasetManifest, *, window: int) -> Excerpt:
    """Up to 6 s of a dataset's held-out audio, from the loudest recordings; short ones are concatenated.

    ``window`` is the one that the run was trained with, so that the split is the same.

    Raises:
        DatasetError: the dataset has too little audio, or a shard is missing.
    """
    segments = read_held_out(store, manifest, window=window)
    rate = manifest.sample_rate
    most = round(EXCERPT_SECONDS * rate)
    gap = np.zeros((manifest.channels, round(_GAP_SECONDS * rate)), dtype=np.float32)
    pieces: list[Audio] = []
    sources: list[str] = []
    names = {source.source_id: Path(source.source).name for source in manifest.sources}
    for segment in sorted(segments, key=_loudness, reverse=True):
        room = most - sum(piece.shape[1] for piece in pieces)
        if room < rate // 4:
            break
        pieces += [_loudest_stretch(np.asarray(segment.pcm), room, rate), gap]
        name = names.get(segment.source_id, segment.source_id)
        if name not in sources:
            sources.append(name)
    return Excerpt(np.concatenate(pieces[:-1], axis=1), rate, tuple(sources))


def stored_excerpt(store: Store, card: ModelCard) -> Excerpt | None:
    """The stored excerpt of a model's examples, or None; saves reading a large dataset again.

    Raises:
        RaveDistError: it cannot be read.
    """
    record = _record(store, card)
    if record is None:
        return None
    with temporary_folder("samples") as temporary:
        path = store.download(card.folder.sample("original"), Path(temporary) / "original.flac")
        return Excerpt(_read(path), card.sample_rate, record.sources, record.held_out)


def synthetic_call(sample_rate: int) -> TransferSource:
    """A kingfisher-like trill, for a library of one instrument."""
    quiet = np.zeros(sample_rate // 2, dtype=np.float32)
    calls = [trill(sample_rate=sample_rate, notes_per_second=pace) for pace in (6.5, 8.0)]
    sound = np.concatenate([quiet, 0.5 * calls[0], quiet, 0.25 * calls[1], quiet])
    return TransferSource("a synthesised kingfisher-like trill", "trill", Excerpt(sound[None], sample_rate, ()))


def examples(store: Store, card: ModelCard, *, instrument: Excerpt, transfer_source: TransferSource) -> Examples:
    """The sounds of a model, from the store, or else generated and stored with the model.

    Raises:
        RaveDistError: the model or a stored sound cannot be read.
    """
    record = _record(store, card)
    with temporary_folder("samples") as temporary:
        local = Path(temporary)
        if record is not None and record.transfer_source == transfer_source.identity:
            sounds = _stored_sounds(store, card, local)
        else:
            sounds = _play(store, card, instrument, transfer_source)
            store.delete(card.folder.samples)  # the record must not exist while the files are replaced
            for role, sound in sounds.items():
                path = local / f"{role}.flac"
                with AudioWriter(path, sample_rate=card.sample_rate, channels=sound.shape[0], subtype="PCM_16") as writer:
                    writer.write(sound)
                sounds[role] = _read(path)  # as a rerun reads it
                store.upload(path, card.folder.sample(role))
            record = ListeningRecord(
                recipe=_RECIPE,
                model=card.reference,
                transfer_source=transfer_source.identity,
                sources=instrument.sources,
                held_out=instrument.held_out,
            )
            record.save(store, card.folder.samples)
    return Examples(card.sample_rate, sounds, instrument.sources, instrument.held_out, transfer_source.name)


def stored_examples(store: Store, card: ModelCard) -> Examples | None:
    """The stored sounds of a model, or None.

    Raises:
        RaveDistError: they cannot be read.
    """
    record = _record(store, card)
    if record is None:
        return None
    with temporary_folder("samples") as temporary:
        sounds = _stored_sounds(store, card, Path(temporary))
    source = record.transfer_source.partition("/")[0]
    name = synthetic_call(card.sample_rate).name if source == "trill" else source
    return Examples(card.sample_rate, sounds, record.sources, record.held_out, name)


def _stored_sounds(store: Store, card: ModelCard, folder: Path) -> dict[str, Audio]:
    return {role: _read(store.download(card.folder.sample(role), folder / f"{role}.flac")) for role in ROLES}


def _record(store: Store, card: ModelCard) -> ListeningRecord | None:
    record = ListeningRecord.find(store, card.folder.samples)
    return record if record is not None and record.recipe == _RECIPE else None


def _play(store: Store, card: ModelCard, instrument: Excerpt, transfer_source: TransferSource) -> dict[str, Audio]:
    converter = Converter.load(store, card)

    def through(sound: Excerpt) -> Audio:
        return converter.convert_array(
            sound.sound, sample_rate=sound.sample_rate, out_sample_rate=card.sample_rate, out_channels=card.channels
        )

    return {"original": instrument.sound, "reconstruction": through(instrument), "transfer": through(transfer_source.excerpt)}


def _read(path: Path) -> Audio:
    with open_audio(path) as audio:
        return _joined(list(audio.blocks()))


def _joined(blocks: Sequence[Any]) -> Audio:
    return np.asarray(np.concatenate(blocks, axis=1), dtype=np.float32)


def _loudness(segment: Segment) -> float:
    return float(np.sqrt(np.mean(np.square(segment.pcm, dtype=np.float64)))) if segment.pcm.nbytes else 0.0


def _loudest_stretch(pcm: np.ndarray[Any, np.dtype[np.int16]], room: int, sample_rate: int) -> Audio:
    """At most ``room`` samples around the most energy, as float with short fades."""
    start = 0
    if pcm.shape[1] > room:
        step = max(1, sample_rate // 10)
        energy = np.add.reduceat(np.square(pcm, dtype=np.float64).sum(axis=0), np.arange(0, pcm.shape[1], step))
        sums = np.convolve(energy, np.ones(max(1, room // step)), mode="valid")
        start = min(int(sums.argmax()) * step, pcm.shape[1] - room)
    piece = np.array(pcm[:, start : start + room], dtype=np.float32) / 32768
    fade = min(piece.shape[1] // 2, round(_FADE_SECONDS * sample_rate))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    piece[:, :fade] *= ramp
    piece[:, piece.shape[1] - fade :] *= ramp[::-1]
    return np.asarray(piece, dtype=np.float32)
