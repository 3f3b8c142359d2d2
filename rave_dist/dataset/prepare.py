"""Preparing recordings: each becomes rows of PCM and a record that accounts for every second.

The PCM of a recording is spooled to a temporary file (memory for short recordings), because only at its end is it known whether
it exceeds full scale, is silent or a duplicate. Memory is constant in the recording's length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from rave_dist.audio.io.sources import AudioSource, check_as_listed, local_copy
from rave_dist.audio.types import Pcm16
from rave_dist.dataset.reader import READER, Reading, read_recording
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.shards import ROW_SECONDS, ShardWriter
from rave_dist.dataset.silence import sounding_spans
from rave_dist.errors import AudioError, StoreError, from_os_error, is_disk_full
from rave_dist.identity import content_id
from rave_dist.records import Rejection, Shard, SourceRecord
from rave_dist.storage.store import Store

_SPOOL_BYTES = 64 << 20


@dataclass(frozen=True)
class Prepared:
    """The outcome for one source: a record, or a rejection of a file that could not be opened."""

    record: SourceRecord | None = None
    rejection: Rejection | None = None


def prepare(
    sources: Iterable[AudioSource], *, store: Store, instrument: str, recipe: Recipe, known: Collection[str]
) -> tuple[list[Prepared], list[Shard]]:
    """Prepares sources in turn and stores their rows. A damaged one gives a record or rejection with its reason.

    Args:
        sources: to be read.
        store: of the rows.
        instrument: name of the instrument.
        recipe: parameters.
        known: ids of sources whose rows are already stored; they are read but not stored again.

    Raises:
        StoreError: the store or this machine's temporary folder cannot be written.
    """
    prepared: list[Prepared] = []
    stored = set(known)
    try:
        with ShardWriter(store, instrument, recipe.sample_rate) as writer:
            for source in sources:
                with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
                    outcome = _read(source, recipe, spool)
                    prepared.append(outcome)
                    record = outcome.record
                    if record is None or record.source_id in stored:
                        continue
                    stored.add(record.source_id)
                    for start, pcm in _rows(spool, record, recipe):
                        writer.write(record.source_id, start, pcm)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise from_os_error(error, where=tempfile.gettempdir()) from error
    return prepared, writer.shards


def _read(source: AudioSource, recipe: Recipe, spool: IO[bytes]) -> Prepared:
    try:
        with local_copy(source.uri) as path:
            reading = read_recording(path, recipe, spool)
            check_as_listed(source)
    except AudioError as error:
        return Prepared(record=_unreadable(source, None, error.what))
    except StoreError as error:
        if is_disk_full(error):
            raise
        return Prepared(rejection=Rejection(source=source.name, seconds=0.0, reason=error.what, unreadable=True))
    if not reading.samples:
        return Prepared(record=_unreadable(source, reading, reading.damage or "contains no samples"))
    return Prepared(record=_account(source, reading, recipe))


def _account(source: AudioSource, reading: Reading, recipe: Recipe) -> SourceRecord:
    spans = sounding_spans(reading.amplitudes.finish(), samples=reading.samples, recipe=recipe)
    rejections = [*_silences(source, spans, reading, recipe)]
    if reading.damage:
        missing = reading.missing_seconds
        rejections.append(Rejection(source=source.name, seconds=missing, reason=reading.damage, unreadable=True))
    return SourceRecord(
        source=source.name,
        source_id=content_id({"pcm": reading.sha256, "recipe": recipe.id}),
        fingerprint=source.fingerprint,
        reader=READER,
        seconds=reading.seconds,
        used_seconds=reading.seconds - sum(r.seconds for r in rejections) if spans else 0.0,
        sample_rate=reading.sample_rate,
        channels=reading.channels,
        format=reading.format,
        gain=reading.gain,
        samples=reading.samples,
        spans=spans,
        pcm_sha256=reading.sha256,
        peak=reading.levels.peak,
        rms=reading.levels.rms,
        dc=reading.levels.dc,
        clipped_samples=reading.levels.clipped_samples,
        warnings=reading.warnings,
        rejections=tuple(rejections),
    )


def _silences(source: AudioSource, spans: tuple[tuple[int, int], ...], reading: Reading, recipe: Recipe) -> Iterator[Rejection]:
    level = f"nothing above {recipe.silence_dbfs:g} dBFS"
    cancelled = f"the channels cancel each other in the mix: {reading.unmix}"
    if not spans:
        reason = cancelled if reading.cancels(0, reading.samples) else f"silent throughout: {level}"
        yield Rejection(source=source.name, seconds=reading.read / reading.sample_rate, reason=reason)
        return
    place = 0
    for start, stop in (*spans, (reading.samples, reading.samples)):
        if start > place:
            length = (start - place) / recipe.sample_rate
            at = f"{clock(place / recipe.sample_rate)} to {clock(start / recipe.sample_rate)}"
            reason = f"from {at}, {cancelled}" if reading.cancels(place, start) else f"silence from {at}: {level}"
            yield Rejection(source=source.name, seconds=length, reason=reason)
        place = stop


def _unreadable(source: AudioSource, reading: Reading | None, reason: str) -> SourceRecord:
    seconds = reading.seconds if reading else 0.0
    return SourceRecord(
        source=source.name,
        source_id="",
        fingerprint=source.fingerprint,
        reader=READER,
        seconds=seconds,
        used_seconds=0.0,
        sample_rate=reading.sample_rate if reading else 0,
        channels=reading.channels if reading else 0,
        format=reading.format if reading else "",
        samples=0,
        spans=(),
        pcm_sha256="",
        peak=0.0,
        rms=0.0,
        dc=0.0,
        clipped_samples=0,
        rejections=(Rejection(source=source.name, seconds=seconds, reason=reason, unreadable=True),),
    )


def _rows(spool: IO[bytes], record: SourceRecord, recipe: Recipe) -> Iterator[tuple[int, Pcm16]]:
    width = 2 * recipe.channels
    size = ROW_SECONDS * recipe.sample_rate
    for start, stop in record.spans:
        spool.seek(start * width)
        for place in range(start, stop, size):
            data = spool.read(min(size, stop - place) * width)
            yield place, np.frombuffer(data, dtype="<i2").reshape(-1, recipe.channels).T


def clock(seconds: float) -> str:
    """Minutes and seconds: 1:02.350."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes}:{rest / 1000:06.3f}"
