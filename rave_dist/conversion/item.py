"""One source of a corpus, from its address to its journal entry."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.snapshot import Snapshot
from rave_dist.audio.io.sources import check_as_listed, local_copy
from rave_dist.audio.io.write import flac_refusal
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import FOREIGN, FOREIGN_FIX, Plan, Task, as_wav, counts_as_done, read_entry
from rave_dist.conversion.describe import Origin
from rave_dist.conversion.file import convert_file
from rave_dist.conversion.levels import decibels
from rave_dist.errors import AudioError, StoreError, from_os_error, is_disk_full
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem, ConversionParameters
from rave_dist.storage.schemes import is_remote, split
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

_S3_KEY_BYTES = 1024
_LEAST_FREE_BYTES = 16 << 20
"""Free space below which a full disk concerns all outputs, not only one that is too large for it."""

_READABLE = "check that the file is there and can be read, then run the same command again"
_INTACT = "replace the file with an intact copy, or leave it out"


@dataclass(frozen=True)
class Outcome:
    """A task's journal entry, and whether the task was already finished."""

    item: ConversionItem
    skipped: bool = False


@dataclass(frozen=True)
class _Readable:
    """The readable part of a source, as the conversion will have it; ``damage`` describes the rest."""

    sample_rate: int
    channels: int
    samples: int
    damage: AudioError | None
    notes: tuple[str, ...]


def convert_item(store: Store, plan: Plan, task: Task, converter: Converter, *, chunk_seconds: float) -> Outcome:
    """Converts one source and writes its journal entry, on failure with the reason and a fix.

    The source is decoded once before the model starts, so that damage is known before anything is written. Errors of reading
    this source or of writing this output fail this item.

    Raises:
        StoreError: OUTPUT as a whole or the store cannot be used, so that other sources would fail too.
    """
    item = failed_item(plan, task, None)
    skipped = False
    entry = read_entry(store, plan, task)
    try:
        with ExitStack() as stack:
            with _reading(task):
                path = stack.enter_context(local_copy(task.source.uri))
                snapshot = Snapshot(path)
                item = item.model_copy(update={"source_sha256": hash_file(path)})
                check_as_listed(task.source)
            with _writing(plan, task):
                done = _done_before(plan, entry, item)
                skipped = done is not None
                item = done or _convert(plan, task, path, item, converter, chunk_seconds, snapshot)
    except AudioError as error:
        item = item.model_copy(update={"reason": error.what, "fix": error.fix or _INTACT})
    item.save(store, plan.journal_key(task))
    return Outcome(item, skipped)


def failed_item(plan: Plan, task: Task, reason: str | None, fix: str = "") -> ConversionItem:
    """The entry of a source that was not converted."""
    return ConversionItem(
        source=task.source.name,
        source_sha256="",
        source_fingerprint=task.source.fingerprint,
        output=plan.output.address(task.output),
        state="failed",
        reason=reason,
        fix=fix,
    )


def _done_before(plan: Plan, entry: ConversionItem | None, item: ConversionItem) -> ConversionItem | None:
    """The journal's entry, if source and output have the same bytes as then; only the modification time may differ."""
    if entry is None or entry.source_sha256 != item.source_sha256 or not counts_as_done(entry, plan):
        return None
    key = plan.written_key(entry)
    if not plan.output.exists(key):
        return None
    tag = plan.output.stat(key).tag
    if tag != entry.output_tag:
        with local_copy(plan.output.address(key)) as path:
            if hash_file(path) != entry.output_sha256:
                return None
    now = {"source": item.source, "source_fingerprint": item.source_fingerprint, "output_tag": tag}
    return entry.model_copy(update=now)


def _convert(
    plan: Plan,
    task: Task,
    path: Path,
    item: ConversionItem,
    converter: Converter,
    chunk_seconds: float,
    snapshot: Snapshot,
) -> ConversionItem:
    parameters = plan.parameters
    with _reading(task):
        sound = _inspect(path, parameters)
    if not sound.samples:
        raise sound.damage or AudioError("contains no samples", where=task.source.name, fix=_INTACT)
    if sound.damage and not parameters.salvage:
        fix = "add --salvage to convert what can be read, or replace the file with an intact copy"
        raise AudioError(sound.damage.what, where=task.source.name, fix=fix)
    key, refusal = task.output, None
    if parameters.format == "flac" and (refusal := flac_refusal(sample_rate=sound.sample_rate, channels=sound.channels)):
        if plan.is_file:
            raise AudioError(refusal, where=task.source.name, fix="end OUTPUT in .wav, or set --sample-rate or --channels")
        key, parameters = as_wav(key), parameters.model_copy(update={"format": "wav"})
    _check_place(plan, key)

    def check_snapshot(seconds: float) -> None:
        with _reading(task):
            snapshot.check()

    origin = Origin(item.source_sha256, task.source.name, damage=sound.damage.what if sound.damage else None)
    with ExitStack() as stack:
        place = Path(plan.output.address(key))
        if not plan.output.is_local:
            place = Path(stack.enter_context(temporary_folder("conversion"))) / "output"
        converted = convert_file(
            converter,
            path,
            place,
            parameters,
            origin=origin,
            source_samples=sound.samples,
            chunk_seconds=chunk_seconds,
            on_read=check_snapshot,
        )
        if not plan.output.is_local:
            plan.output.upload(place, key)
        output_sha256 = hash_file(place)
    output = converted.levels
    return item.model_copy(
        update={
            "output": plan.output.address(key),
            "output_sha256": output_sha256,
            "output_tag": plan.output.stat(key).tag,
            "state": "salvaged" if sound.damage else "converted",
            "reason": sound.damage and sound.damage.what,
            "fix": _INTACT if sound.damage else "",
            "seconds": converted.seconds,
            "clipped_samples": output.over,
            "clipped_seconds": output.over_samples / sound.sample_rate,
            "over_db": max(0.0, decibels(output.peak)),
            "silent": converted.silent,
            "clipped": converted.clipped,
            "other_format": refusal,
            "notes": sound.notes,
            "carried": converted.carried,
            "not_carried": converted.not_carried,
        }
    )


def _inspect(path: Path, parameters: ConversionParameters) -> _Readable:
    samples, damage = 0, None
    with open_audio(path) as decoder:
        try:
            for block in decoder.blocks():
                samples += block.shape[1]
        except AudioError as error:
            damage = error
        rate, channels = parameters.sample_rate or decoder.sample_rate, parameters.channels or decoder.channels
        return _Readable(rate, channels, samples, damage, decoder.notes)


def _check_place(plan: Plan, key: str) -> None:
    """Refuses, before the model starts, an output whose name cannot exist or is taken by a folder.

    Raises:
        StoreError: with the reason.
    """
    address = plan.output.address(key)
    if key in plan.protected:
        raise StoreError(FOREIGN, where=address, fix=FOREIGN_FIX)
    if is_remote(address):
        size = len(split(address)[2].encode())
        if address.startswith("s3:") and size > _S3_KEY_BYTES:
            raise StoreError(
                f"an S3 key has at most {_S3_KEY_BYTES} bytes, not {size}",
                where=address,
                fix="shorten the recording's name, or choose a shorter prefix as OUTPUT",
            )
        return
    try:
        if stat.S_ISDIR(os.stat(address).st_mode):
            raise StoreError("a folder has this name", where=address, fix="move the folder, or choose another OUTPUT")
    except FileNotFoundError:
        return
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise from_os_error(error, where=address) from error


@contextmanager
def _reading(task: Task) -> Iterator[None]:
    """An unreadable source fails that source only."""
    try:
        yield
    except StoreError as error:
        raise AudioError(error.what, where=task.source.name, fix=error.fix or _READABLE) from error
    except OSError as error:
        reason = from_os_error(error, where=task.source.name)
        raise AudioError(reason.what, where=task.source.name, fix=reason.fix) from error


@contextmanager
def _writing(plan: Plan, task: Task) -> Iterator[None]:
    """An output that cannot be written fails its source only, unless nothing can be written to OUTPUT."""
    try:
        yield
    except OSError as error:
        plan.output.check_writable(needed_bytes=_LEAST_FREE_BYTES if is_disk_full(error) else 0)
        reason = error if isinstance(error, StoreError) else from_os_error(error, where=task.source.name)
        fix = reason.fix or "check the disk and run the same command again"
        raise AudioError(
            f"the output cannot be written to {plan.output.uri}: {reason.what}", where=task.source.name, fix=fix
        ) from error
