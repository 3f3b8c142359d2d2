"""One source of a corpus, from its address to its journal entry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.snapshot import Snapshot
from rave_dist.audio.io.sources import check_as_listed, local_copy
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task, counts_as_done, read_entry
from rave_dist.conversion.file import convert_file
from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem
from rave_dist.storage.store import Store


@dataclass(frozen=True)
class Outcome:
    """A task's journal entry, and whether the task was already finished."""

    item: ConversionItem
    skipped: bool = False


@dataclass(frozen=True)
class _Readable:
    """The readable length of a source; ``damage`` describes the rest."""

    samples: int
    damage: str | None


def convert_item(store: Store, plan: Plan, task: Task, converter: Converter, *, chunk_seconds: float) -> Outcome:
    """Converts one source and writes its journal entry, on failure with the reason.

    The source is decoded once before the model starts, so that damage is known before anything is written.

    Raises:
        StoreError: OUTPUT or the store cannot be used, so that other sources would fail too.
    """
    item = failed_item(plan, task, None)
    skipped = False
    try:
        with ExitStack() as stack:
            with _reading(task):
                path = stack.enter_context(local_copy(task.source.uri))
                snapshot = Snapshot(path)
                item = item.model_copy(update={"source_sha256": hash_file(path)})
                check_as_listed(task.source)
            done = _done_before(store, plan, task, item.source_sha256)
            skipped = done is not None
            item = item.model_copy(
                update=done or _convert(plan, task, path, snapshot, item.source_sha256, converter, chunk_seconds)
            )
    except AudioError as error:
        item = item.model_copy(update={"reason": error.what})
    item.save(store, plan.journal_key(task))
    return Outcome(item, skipped)


def failed_item(plan: Plan, task: Task, reason: str | None) -> ConversionItem:
    """The entry of a source that was not converted."""
    return ConversionItem(
        source=task.source.name,
        source_sha256="",
        source_fingerprint=task.source.fingerprint,
        output=plan.output.address(task.output),
        state="failed",
        reason=reason,
    )


def _done_before(store: Store, plan: Plan, task: Task, sha256: str) -> dict[str, object] | None:
    """The journal's entry, if source and output have the same bytes as then; only the modification time may differ."""
    entry = read_entry(store, plan, task)
    if entry is None or entry.source_sha256 != sha256 or not counts_as_done(entry, plan) or not plan.output.exists(task.output):
        return None
    tag = plan.output.stat(task.output).tag
    if tag != entry.output_tag:
        with local_copy(plan.output.address(task.output)) as path:
            if hash_file(path) != entry.output_sha256:
                return None
    kept = entry.model_dump(include={"output_sha256", "state", "reason", "seconds", "clipped_samples"})
    return {**kept, "output_tag": tag}


def _convert(
    plan: Plan, task: Task, path: Path, snapshot: Snapshot, sha256: str, converter: Converter, chunk_seconds: float
) -> dict[str, object]:
    parameters = plan.parameters
    with _reading(task):
        sound = _inspect(path)
    if sound.damage and not parameters.salvage:
        raise AudioError(sound.damage, where=task.source.name)
    if not sound.samples:
        raise AudioError(sound.damage or "contains no samples", where=task.source.name)

    def check_snapshot(seconds: float) -> None:
        with _reading(task):
            snapshot.check()

    comment = (
        f"rave-dist: {Path(task.source.name).name} (sha256 {sha256}) through {plan.card.reference}, seed {parameters.seed}"
    )
    with ExitStack() as stack:
        place = Path(plan.output.address(task.output))
        if not plan.output.is_local:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rave-dist-"))) / "output"
        converted = convert_file(
            converter,
            path,
            place,
            parameters,
            comment=f"{comment}; damaged source: {sound.damage}" if sound.damage else comment,
            source_samples=sound.samples,
            chunk_seconds=chunk_seconds,
            on_read=check_snapshot,
        )
        if not plan.output.is_local:
            plan.output.upload(place, task.output)
        output_sha256 = hash_file(place)
    return {
        "output_sha256": output_sha256,
        "output_tag": plan.output.stat(task.output).tag,
        "state": "salvaged" if sound.damage else "converted",
        "reason": sound.damage,
        "seconds": converted.seconds,
        "clipped_samples": converted.clipped_samples,
    }


def _inspect(path: Path) -> _Readable:
    samples, damage = 0, None
    with open_audio(path) as decoder:
        try:
            for block in decoder.blocks():
                samples += block.shape[1]
        except AudioError as error:
            damage = error.what
    return _Readable(samples, damage)


@contextmanager
def _reading(task: Task) -> Iterator[None]:
    """An unreadable source fails that source only, whereas errors of OUTPUT and the store stop the conversion."""
    try:
        yield
    except StoreError as error:
        raise AudioError(error.what, where=task.source.name) from error
    except OSError as error:
        raise AudioError(from_os_error(error, where=task.source.name).what, where=task.source.name) from error
