"""The stages check, ingest, train, publish and report; a stage depends only on the records of the one before.

Instruments are independent: an error of one is kept in its record and the others continue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.errors import InUseError, RaveDistError, TrainingError
from rave_dist.leases import hold_library, hold_store, library_holder
from rave_dist.library.manifest import Library
from rave_dist.library_stages import Ingested, ingest_library, train_library, write_failure
from rave_dist.maintenance.prune import Pruned, find_removable, remove
from rave_dist.on_end import notifying
from rave_dist.progress import SILENT, Progress
from rave_dist.records import LeaseRecord, ModelCard, Problem, RunRecord, TrainingSpec
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder
from rave_dist.time_left import spent

if TYPE_CHECKING:
    from rave_dist.checks import LibraryCheck
    from rave_dist.maintenance.verify import Verification


@dataclass(frozen=True)
class LibraryRun:
    """The outcome of all stages: the run records, the outcomes of ingest, and the address of the page."""

    records: list[RunRecord]
    ingested: list[Ingested]
    report: str

    @property
    def complete(self) -> bool:
        """Whether every instrument was trained and published and every recording could be read."""
        return all(r.state == "done" for r in self.records) and all(i.complete for i in self.ingested)


def check(library: Library, only: list[str] | None = None, *, progress: Progress = SILENT) -> LibraryCheck:
    """The planned runs and the problems; reads only headers of recordings and trains nothing."""
    progress.stage("checking")
    from rave_dist.checks import check_library

    return check_library(library, only, progress=progress)


def ingest(library: Library, only: list[str] | None = None, *, progress: Progress = SILENT) -> list[Ingested]:
    """Converts the recordings of the named instruments (or of all) to datasets.

    Raises:
        StoreError: the store cannot be written.
        ClusterError: Ray does not answer.
        InUseError: another command is at work on the library.
    """
    names = library.select(only)
    library.store.check_writable()
    with hold_library(library.store, library.name, "ingest", say=progress.say), _ray(progress):
        return ingest_library(library, names, progress)


def train(
    library: Library, only: list[str] | None = None, *, deadline_seconds: float | None = None, progress: Progress = SILENT
) -> list[RunRecord]:
    """Trains the named instruments (or all) concurrently on their ingested datasets and publishes each when it ends.

    Args:
        library: the library.
        only: names of the instruments.
        deadline_seconds: limits the budgets so that all end within this time from now.
        progress: receives the progress.

    Raises:
        ConfigurationError: the deadline leaves no time for training.
        StoreError: the store cannot be written.
        ClusterError: Ray does not answer.
        InUseError: another command is at work on the library.
    """
    deadline = _moment(deadline_seconds)
    names = library.select(only)
    library.store.check_writable()
    with notifying(library, "train", progress.say) as end, hold_library(library.store, library.name, "train", say=progress.say):
        end.begin()
        end.records = train_library(library, names, progress, ray=lambda: _ray(progress), deadline=deadline)
        end.complete, end.spent = all(record.state == "done" for record in end.records), _spent(library, end.records)
    return list(end.records)


def publish(library: Library, only: list[str] | None = None, *, progress: Progress = SILENT) -> list[RunRecord]:
    """Publishes models from the newest checkpoints of the named instruments (or all); training can continue afterwards.

    Args:
        library: the library.
        only: names of the instruments.
        progress: receives the number of finished instruments.

    Returns:
        Their records, with the model or the reason why there is none.

    Raises:
        StoreError: the store cannot be used.
        InUseError: a command is at work on the whole store.
    """
    progress.stage("publishing")
    from rave_dist.registry.publish import publish as publish_run
    from rave_dist.training.heartbeat import write_record
    from rave_dist.training.state.outputs import write_outputs_from_checkpoint

    names = library.select(only)
    with _outputs(library, progress) as outputs:
        store, records = library.store, _read_records(library, names)
        for index, record in enumerate(records):
            progress.advance(index, len(records), "instruments")
            try:
                if not record.run_id:
                    raise TrainingError("the instrument has not been trained yet", fix="run rave-dist train first")
                credit = library.settings(record.instrument).credit or {}
                spec = TrainingSpec.load(store, record.folder.spec).model_copy(update={"credit": credit})
                write_outputs_from_checkpoint(store, spec, outputs)
                card = publish_run(store, spec, outputs=outputs)
                records[index] = record.model_copy(update={"model": card.reference, "verdict": card.verdict})
                if outputs == store:
                    write_record(store, records[index])
            except RaveDistError as error:
                records[index] = record.model_copy(update={"error": Problem.of(error)})
        progress.advance(len(records), len(records), "instruments")
    return records


@contextmanager
def _outputs(library: Library, progress: Progress) -> Iterator[Store]:
    """Where to write the outputs of checkpoints: the store, or a temporary folder while another command writes the runs."""
    with ExitStack() as stack:
        outputs = library.store
        try:
            stack.enter_context(hold_library(library.store, library.name, "publish", say=progress.say))
        except InUseError:
            if holder(library) is None:  # it is the whole store that is in use
                raise
            outputs = Store(stack.enter_context(temporary_folder("publish")))
        yield outputs


def run(
    library: Library,
    only: list[str] | None = None,
    *,
    deadline_seconds: float | None = None,
    progress: Progress = SILENT,
) -> LibraryRun:
    """Runs all stages: check, ingest, train, publish, report. A failed instrument does not stop the others.

    Args:
        library: the library.
        only: names of the instruments.
        deadline_seconds: limits the budgets so that all end within this time from now.
        progress: receives the progress.

    Raises:
        ConfigurationError: the deadline leaves no time for training.
        StoreError: the store cannot be written.
        ClusterError: Ray does not answer.
        InUseError: another command is at work on the library.
    """
    deadline = _moment(deadline_seconds)
    names = library.select(only)
    library.store.check_writable()
    with notifying(library, "run", progress.say) as end, hold_library(library.store, library.name, "run", say=progress.say):
        end.begin()
        outcome = _run(library, names, progress, deadline=deadline)
        end.records, end.complete, end.report = outcome.records, outcome.complete, outcome.report
        end.spent = _spent(library, outcome.records)
    return outcome


def _spent(library: Library, records: Sequence[RunRecord]) -> dict[str, float]:
    """What the training took, that of the joint base included, if `on_end` is to be notified."""
    if library.manifest.on_end is None:
        return {}
    base = base_status(library)
    return spent([*([base] if base else []), *records], library.manifest.price)


def _moment(seconds: float | None) -> float | None:
    """The time of `time.monotonic` after a number of seconds."""
    return None if seconds is None else time.monotonic() + seconds


def _run(library: Library, names: Sequence[str], progress: Progress, *, deadline: float | None) -> LibraryRun:
    checks = check(library, list(names), progress=progress)
    failed: dict[str, RunRecord] = {}
    for outcome in checks.instruments:
        if not outcome.ok:
            failed[outcome.name] = write_failure(library, outcome.name, outcome.problems[0])
    ready = [name for name in names if name not in failed]
    ingested: list[Ingested] = []
    records: dict[str, RunRecord] = {}
    if ready:
        with _ray(progress):
            ingested = ingest_library(library, ready, progress)
            for item in ingested:
                if item.error:
                    failed[item.name] = write_failure(library, item.name, item.error)
            ready = [name for name in ready if name not in failed]
            if ready:
                trained = train_library(library, ready, progress, ray=nullcontext, deadline=deadline)
                records = {record.instrument: record for record in trained}
    records |= failed
    ordered = [records[name] for name in names]
    return LibraryRun(ordered, ingested, report(library, progress=progress))


def status(library: Library, only: list[str] | None = None) -> list[RunRecord]:
    """The state of each instrument, from the records in the store, and whether it belongs to the present manifest."""
    records = _read_records(library, library.select(only))
    if not any(record.run_id for record in records):
        return records
    from rave_dist.checks.outdated import outdated  # imported here: it needs numpy

    return at_once(lambda record: record.model_copy(update={"outdated": outdated(library, record)}), records)


def holder(library: Library) -> LeaseRecord | None:
    """The command that is at work on a library; None if there is none."""
    return library_holder(library.store, library.name)


def _read_records(library: Library, names: Sequence[str]) -> list[RunRecord]:
    """The records of instruments; without a command at work none of them is running, whatever a killed one left."""
    from rave_dist.training.heartbeat import at_rest, read_live_records

    records = read_live_records(library.store, library.name, names)
    resting = at_rest(records)
    return resting if resting != records and holder(library) is None else records


def base_status(library: Library) -> RunRecord | None:
    """The state of the library's joint base; None if the manifest does not request one."""
    spec = library.base_spec(dataset="")
    return None if spec is None else _read_records(library, [spec.instrument])[0]


def report(library: Library, *, progress: Progress = SILENT) -> str:
    """Writes the library's page from the present contents of the store.

    Returns:
        The page's full path or s3:// address.
    """
    progress.stage("writing the page")
    from rave_dist.reports.page import write_report

    return library.store.address(write_report(library.store, library, status(library), base=base_status(library)))


def models(store: Store, on_invalid: Callable[[RaveDistError], None] = lambda error: None) -> list[ModelCard]:
    """All versions of the published models, by name and age; ``on_invalid`` gets the error of each card that is not valid."""
    from rave_dist.registry.store import list_models

    return list_models(store, on_invalid)


def latest_models(store: Store) -> list[ModelCard]:
    """The latest version of every published model, by name."""
    from rave_dist.registry.store import list_latest

    return list_latest(store)


def find_model(store: Store, reference: str) -> ModelCard:
    """A published model by NAME (its latest version) or NAME@VERSION.

    Raises:
        ModelNotFoundError: no such model or version.
    """
    from rave_dist.registry.store import find

    return find(store, reference)


def unpack(store: Store, model: str, folder: Path) -> Path:
    """Writes the run of a published model as a folder for stock RAVE; returns its checkpoint.

    Raises:
        ModelNotFoundError: no such model or version, or its run is no longer in the store.
        StoreError: the folder exists and is not empty, or cannot be written.
    """
    from rave_dist.rave.lightning_checkpoint import write_stock_run
    from rave_dist.registry.store import fetch_run, find
    from rave_dist.training.state.checkpoint import last_checkpoint

    card = find(store, model)
    with temporary_folder("unpack") as scratch:
        run = fetch_run(store, card, folder=Path(scratch))
        step = card.step if card.best_step is None else card.best_step
        return write_stock_run(run, folder, step=step, saved=last_checkpoint(store, card.run_folder.checkpoints))


def verify(store: Store, *, read_data: str | None = None, progress: Progress = SILENT) -> Verification:
    """Whether the records of a store and the files that they name are whole.

    Args:
        store: only read.
        read_data: ``n/t`` reads the n-th of t parts of the files; None reads only records.
        progress: receives the number of finished records and files.

    Raises:
        ConfigurationError: ``read_data`` is not a part.
        StoreError: the store cannot be read.
    """
    from rave_dist.maintenance.verify import Part
    from rave_dist.maintenance.verify import verify as verify_store

    return verify_store(store, part=None if read_data is None else Part.parse(read_data), progress=progress)


def prune(store: Store, *, keep: int, removes: bool, progress: Progress = SILENT) -> Pruned:
    """What a store no longer needs; removed while no command is at work on it, if that is asked for.

    Args:
        store: the store.
        keep: versions of each model that are kept in addition to the latest one.
        removes: remove it.
        progress: receives the number of removed items.

    Raises:
        InUseError: a command is at work on a library of the store; only raised if something is to be removed.
        StoreError: the store cannot be used.
    """
    progress.stage("examining the store")
    with hold_store(store, "prune", say=progress.say) if removes else nullcontext():
        items = find_removable(store, keep=keep)
        for done, item in enumerate(items if removes else ()):
            progress.advance(done, len(items), "items")
            remove(store, item)
    return Pruned(store=store.uri, removed=removes, items=tuple(items))


@contextmanager
def _ray(progress: Progress) -> Iterator[None]:
    """Connects to Ray in a context."""
    progress.stage("starting Ray")  # before its import, which takes seconds
    from rave_dist.cluster import connected

    with connected(say=progress.say):
        yield
