"""One source of a corpus, from its address to its journal entry."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rave_dist.audio.io.snapshot import Snapshot
from rave_dist.audio.io.sources import check_as_listed, local_copy
from rave_dist.audio.io.write import Format, flac_refusal
from rave_dist.audio.metadata.times import keep_time
from rave_dist.conversion.corpus import FOREIGN, FOREIGN_FIX, Plan, Task, counts_as_done, output_tag, read_entry
from rave_dist.conversion.describe import Origin
from rave_dist.conversion.file import ConvertedFile, Target, convert_together
from rave_dist.conversion.inspection import Readable, inspect
from rave_dist.conversion.levels import decibels
from rave_dist.conversion.names import as_wav
from rave_dist.conversion.stream import StreamConverter
from rave_dist.errors import AudioError, StoreError, from_os_error, is_disk_full
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem
from rave_dist.storage.schemes import is_remote, split
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

_S3_KEY_BYTES = 1024
_LEAST_FREE_BYTES = 16 << 20
"""Free space below which a full disk concerns all outputs, not only one that is too large for it."""

_READABLE = "check that the file is there and can be read, then run the same command again"
_INTACT = "replace the file with an intact copy, or leave it out"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A journal entry, the id of its conversion, and whether the task was already finished."""

    item: ConversionItem
    conversion: str
    skipped: bool = False


def convert_source(
    store: Store, task: Task, conversions: Sequence[tuple[Plan, StreamConverter]], *, chunk_seconds: float
) -> list[Outcome]:
    """Converts one source through one or several models and writes the journal entries, on failure with the reason and a fix.

    The source is decoded once before the models start, so that damage is known before anything is written, and once for all
    models together. Errors of reading this source or of writing an output fail this source or output.

    Args:
        store: the library's store.
        task: the source, and the key of its outputs.
        conversions: plans of which it is a task, each with its model.
        chunk_seconds: seconds of audio in a model at once.

    Returns:
        The outcomes, in the order of ``conversions``.

    Raises:
        StoreError: an OUTPUT as a whole or the store cannot be used, so that other sources would fail too.
    """
    outputs = [_Output(store, plan, task, converter) for plan, converter in conversions]
    try:
        with ExitStack() as stack:
            with _reading(task):
                path = stack.enter_context(local_copy(task.source.uri))
                snapshot = Snapshot(path)
                sha256 = hash_file(path)
                check_as_listed(task.source)
            for output in outputs:
                output.look_for(sha256)
            if wanted := [output for output in outputs if output.is_open]:
                _convert(task, path, wanted, snapshot, chunk_seconds)
    except AudioError as error:
        for output in outputs:
            output.fail(error)
    for output in outputs:
        output.item.save(store, output.plan.journal_key(task))
    return [Outcome(output.item.without_scores, output.plan.id, output.is_skipped) for output in outputs]


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


def _convert(task: Task, path: Path, outputs: list[_Output], snapshot: Snapshot, chunk_seconds: float) -> None:
    """Writes the outputs of one source."""
    parameters = outputs[0].plan.parameters  # those of reading are the same for all

    def check_running(seconds: float) -> None:
        for output in outputs:
            output.check_running()

    def check(seconds: float) -> None:
        check_running(seconds)
        with _reading(task):
            snapshot.check()

    with _reading(task):
        sound = inspect(path, parameters, on_read=check_running)
    if not sound.samples:
        raise sound.damage or AudioError("contains no samples", where=task.source.name, fix=_INTACT)
    if sound.damage and not parameters.salvage:
        fix = "add --salvage to convert what can be read, or replace the file with an intact copy"
        raise AudioError(sound.damage.what, where=task.source.name, fix=fix)

    with ExitStack() as stack:
        targets = [(output, target) for output in outputs if (target := output.prepare(sound, stack)) is not None]
        made = convert_together(
            path,
            [target for _, target in targets],
            salvage=parameters.salvage,
            source_samples=sound.samples,
            chunk_seconds=chunk_seconds,
            on_read=check,
        )
        for (output, target), file in zip(targets, made, strict=True):
            output.finish(target, file, sound)


class _Output:
    """The output of one plan for a source, up to its journal entry.

    Args:
        store: of the journal.
        plan: its conversion.
        task: the source.
        converter: its model.
    """

    def __init__(self, store: Store, plan: Plan, task: Task, converter: StreamConverter) -> None:
        self.plan = plan
        self.item = failed_item(plan, task, None)
        self.is_open = True
        self.is_skipped = False
        self._task = task
        self._converter = converter
        self._entry = read_entry(store, plan, task)
        self._refusal: str | None = None  # why it is no FLAC file
        self._key = task.output

    def check_running(self) -> None:
        """Raises StoppedError if conversions in this process are to end."""
        if self._converter.batches is not None:
            self._converter.batches.check()

    def fail(self, error: AudioError) -> None:
        """Ends it, unless it has ended."""
        if self.is_open:
            self.item = self.item.model_copy(update={"reason": error.what, "fix": error.fix or _INTACT})
            self.is_open = False

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """An error within ends this output alone."""
        try:
            with _writing(self.plan, self._task):
                yield
        except AudioError as error:
            self.fail(error)

    def look_for(self, source_sha256: str) -> None:
        """Skips it, if its file was made before and source and file have the same bytes as then."""
        self.item = self.item.model_copy(update={"source_sha256": source_sha256})
        with self._ending():
            if (done := self._done_before()) is not None:
                self.item, self.is_skipped, self.is_open = done, True, False

    def _done_before(self) -> ConversionItem | None:
        """The journal's entry; only the modification times of its files may differ."""
        entry, plan = self._entry, self.plan
        if entry is None or entry.source_sha256 != self.item.source_sha256 or not counts_as_done(entry, plan):
            return None
        key = plan.written_key(entry)
        if not plan.output.exists(key):
            return None
        tag = output_tag(plan, key)
        if tag != entry.output_tag:
            with local_copy(plan.output.address(key)) as path:
                if hash_file(path) != entry.output_sha256:
                    return None
        now = {"source": self.item.source, "source_fingerprint": self.item.source_fingerprint, "output_tag": tag}
        return entry.model_copy(update=now)

    def prepare(self, sound: Readable, stack: ExitStack) -> Target | None:
        """The file to write, in a temporary folder if OUTPUT is remote; None if it cannot be written."""
        plan = self.plan
        file_format: Format = "wav" if self._key.endswith(".wav") else "flac"
        target: Target | None = None
        with self._ending():
            if file_format == "flac" and (refusal := flac_refusal(sample_rate=sound.sample_rate, channels=sound.channels)):
                if plan.is_file:
                    fix = "end OUTPUT in .wav, or set --sample-rate or --channels"
                    raise AudioError(refusal, where=self._task.source.name, fix=fix)
                self._refusal = refusal
                self._key, file_format = as_wav(self._key), "wav"
            _check_place(plan, self._key)
            place = Path(plan.output.address(self._key))
            if not plan.output.is_local:
                place = Path(stack.enter_context(temporary_folder("conversion"))) / "output"
            damage = sound.damage.what if sound.damage else None
            origin = Origin(self.item.source_sha256, self._task.source.name, damage=damage)
            target = Target(place, self._converter, plan.parameters, file_format, origin, sound.profile)
        return target

    def finish(self, target: Target, made: ConvertedFile | Exception, sound: Readable) -> None:
        """Uploads a written file, if OUTPUT is remote, and describes it in the entry."""
        with self._ending():
            if isinstance(made, Exception):
                raise made
            if not self.plan.output.is_local:
                self.plan.output.upload(target.path, self._key)
            elif not is_remote(self._task.source.uri):
                keep_time(Path(self._task.source.uri), target.path)
            levels = made.levels
            self.item = self.item.model_copy(
                update={
                    "output": self.plan.output.address(self._key),
                    "output_sha256": hash_file(target.path),
                    "output_tag": output_tag(self.plan, self._key),
                    "state": "salvaged" if sound.damage else "converted",
                    "reason": sound.damage and sound.damage.what,
                    "fix": _INTACT if sound.damage else "",
                    "seconds": made.seconds,
                    "clipped_samples": levels.over,
                    "clipped_seconds": levels.over_samples / sound.sample_rate,
                    "over_db": max(0.0, decibels(levels.peak)),
                    "silent": made.silent,
                    "clipped": made.clipped,
                    **({} if made.familiarity is None else made.familiarity.facts),
                    "other_format": self._refusal,
                    "notes": (*sound.notes, *made.notes),
                    "carried": made.carried,
                    "not_carried": made.not_carried,
                    **(made.preserved.model_dump() if made.preserved else {}),
                }
            )
            self.is_open = False


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
