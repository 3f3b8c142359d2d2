"""Preparing recordings: each becomes rows of PCM and a record that accounts for every second.

::

    decode ──> channels ──> sample rate ──> int16 ──> spool ──> non-silent intervals, as rows
                                              └──> levels, amplitudes, sha256

The spool is a temporary file (memory for short recordings), because only at its end is it known whether a recording is
intact, silent or a duplicate. Memory is constant in the recording's length.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.io.sources import AudioSource, check_as_listed, local_copy
from rave_dist.audio.metrics.levels import Levels, warnings
from rave_dist.audio.types import Audio, Pcm16
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.shards import ROW_SECONDS, ShardWriter
from rave_dist.dataset.silence import Amplitudes, sounding_spans
from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.identity import content_id
from rave_dist.records import Rejection, Shard, SourceRecord
from rave_dist.storage.store import Store

_SPOOL_BYTES = 64 << 20
_BLOCK_SECONDS = 10.0


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
    decoder: Decoder | None = None
    reader = None
    try:
        with local_copy(source.uri) as path, open_audio(path) as decoder:
            reader = _Reader(decoder, recipe, spool)
            reader.run()
            check_as_listed(source)
            return Prepared(record=reader.account(source))
    except AudioError as error:
        samples = max(reader.read if reader else 0, (decoder.declared_samples or 0) if decoder else 0)
        seconds = samples / decoder.sample_rate if decoder else 0.0
        return Prepared(record=_unreadable(source, decoder, seconds, error.what))
    except StoreError as error:
        if _is_disk_full(error):
            raise
        return Prepared(rejection=Rejection(source=source.name, seconds=0.0, reason=error.what, unreadable=True))


def _is_disk_full(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and (cause.errno == errno.ENOSPC or _is_disk_full(cause))


class _Reader:
    """Streams one decoder into the spool, measuring levels and amplitudes."""

    def __init__(self, decoder: Decoder, recipe: Recipe, spool: IO[bytes]) -> None:
        self._decoder = decoder
        self._recipe = recipe
        self._spool = spool
        self._levels = Levels(decoder.subtype)
        self._amplitudes = Amplitudes(recipe.frame)
        self._digest = hashlib.sha256()
        self._samples = 0
        self.read = 0

    def run(self) -> None:
        channels = min(self._decoder.channels, self._recipe.channels)  # resample as few channels as possible
        mixed = (map_channels(block, channels) for block in self._decoded())
        rates = {"rate": self._decoder.sample_rate, "new_rate": self._recipe.sample_rate}
        for block in resample(mixed, channels=channels, **rates):
            pcm = _to_int16(map_channels(block, self._recipe.channels))
            self._amplitudes.add(pcm)
            self._levels.add(pcm)
            data = np.ascontiguousarray(pcm.T).astype("<i2", copy=False).tobytes()
            self._digest.update(data)
            self._samples += pcm.shape[1]
            self._spool.write(data)

    def _decoded(self) -> Iterator[Audio]:
        for block in self._decoder.blocks(_BLOCK_SECONDS):
            self.read += block.shape[1]
            self._levels.add_decoded(block)
            yield block

    def account(self, source: AudioSource) -> SourceRecord:
        decoder, recipe = self._decoder, self._recipe
        seconds = self.read / decoder.sample_rate
        if not self._samples:
            return _unreadable(source, decoder, seconds, "contains no samples")
        spans = sounding_spans(self._amplitudes.finish(), samples=self._samples, recipe=recipe)
        rejections = tuple(_silences(source, spans, self._samples, seconds, recipe))
        sha256 = self._digest.hexdigest()
        return SourceRecord(
            source=source.name,
            source_id=content_id({"pcm": sha256, "recipe": recipe.id}),
            fingerprint=source.fingerprint,
            seconds=seconds,
            used_seconds=seconds - sum(r.seconds for r in rejections) if spans else 0.0,
            sample_rate=decoder.sample_rate,
            channels=decoder.channels,
            format=f"{decoder.format} {decoder.subtype}",
            samples=self._samples,
            spans=spans,
            pcm_sha256=sha256,
            peak=self._levels.peak,
            rms=self._levels.rms,
            dc=self._levels.dc,
            clipped_samples=self._levels.clipped_samples,
            warnings=warnings(self._levels, decoder.sample_rate, recipe.sample_rate),
            rejections=rejections,
        )


def _to_int16(block: Audio) -> Pcm16:
    scaled = np.rint(block * np.float32(2**15))
    pcm: Pcm16 = np.clip(scaled, -(2**15), 2**15 - 1, out=scaled).astype(np.int16)
    return pcm


def _silences(
    source: AudioSource, spans: tuple[tuple[int, int], ...], samples: int, seconds: float, recipe: Recipe
) -> Iterator[Rejection]:
    level = f"nothing above {recipe.silence_dbfs:g} dBFS"
    if not spans:
        yield Rejection(source=source.name, seconds=seconds, reason=f"silent throughout: {level}")
        return
    place = 0
    for start, stop in (*spans, (samples, samples)):
        if start > place:
            length = (start - place) / recipe.sample_rate
            at = f"{clock(place / recipe.sample_rate)} to {clock(start / recipe.sample_rate)}"
            yield Rejection(source=source.name, seconds=length, reason=f"silence from {at}: {level}")
        place = stop


def _unreadable(source: AudioSource, decoder: Decoder | None, seconds: float, reason: str) -> SourceRecord:
    return SourceRecord(
        source=source.name,
        source_id="",
        fingerprint=source.fingerprint,
        seconds=seconds,
        used_seconds=0.0,
        sample_rate=decoder.sample_rate if decoder else 0,
        channels=decoder.channels if decoder else 0,
        format=f"{decoder.format} {decoder.subtype}" if decoder else "",
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
