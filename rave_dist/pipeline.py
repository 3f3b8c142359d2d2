"""The stages check, ingest, train, publish and report; a stage depends only on the records of the one before.

Instruments are independent: an error of one is kept in its record and the others continue.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave_dist.errors import ConfigurationError, DatasetError, LibraryError, ModelNotFoundError, RaveDistError, TrainingError
from rave_dist.library.manifest import Library
from rave_dist.progress import SILENT, Progress
from rave_dist.records import (
    ConversionParameters,
    ConversionRecord,
    DatasetManifest,
    ModelCard,
    Problem,
    RunRecord,
    TrainingSpec,
)
from rave_dist.storage.store import Store

if TYPE_CHECKING:
    from rave_dist.checks import LibraryCheck


@dataclass(frozen=True)
class Ingested:
    """The outcome of ingest for one instrument: a dataset, or the reason why there is none."""

    name: str
    manifest: DatasetManifest | None = None
    error: Problem | None = None

    @property
    def complete(self) -> bool:
        """Whether there is a dataset and every recording could be found and read."""
        if self.manifest is None:
            return False
        return not any(r.unreadable for r in self.manifest.rejected) and not any(p.missing for p in self.manifest.passed_over)

    def to_json(self) -> dict[str, Any]:
        """The instrument's entry in the document of ``rave-dist ingest``."""
        manifest = self.manifest
        return {
            "name": self.name,
            "dataset": manifest.id if manifest else None,
            "used_seconds": round(manifest.used_seconds, 3) if manifest else 0.0,
            "rejected": [r.to_json() for r in manifest.rejected] if manifest else [],
            "warnings": [{"source": source, "what": what} for source, what in manifest.warnings] if manifest else [],
            "passed_over": [p.to_json() for p in manifest.passed_over] if manifest else [],
            "notes": list(manifest.notes) if manifest else [],
            "error": self.error.to_json() if self.error else None,
        }


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
    """
    names = library.select(only)
    library.store.check_writable()
    with _ray(progress):
        return _ingest(library, names, progress)


def _ingest(library: Library, names: Sequence[str], progress: Progress) -> list[Ingested]:
    from rave_dist.dataset.on_ray import ingest as ingest_instrument

    progress.stage("reading recordings")
    outcomes: list[Ingested] = []
    for name in names:
        settings = library.settings(name)
        assert settings.sample_rate is not None
        assert settings.channels is not None
        try:
            manifest = ingest_instrument(
                library.store,
                name,
                library.sources(name),
                sample_rate=settings.sample_rate,
                channels=settings.channels,
                credit=settings.credit or {},
                library=library.name,
                progress=partial(progress.advance, unit="recordings", name=name),
            )
            outcomes.append(Ingested(name, manifest))
        except RaveDistError as error:
            outcomes.append(Ingested(name, error=Problem.of(error)))
    return outcomes


def train(library: Library, only: list[str] | None = None, *, progress: Progress = SILENT) -> list[RunRecord]:
    """Trains the named instruments (or all) concurrently on their ingested datasets and publishes each when it ends.

    Raises:
        StoreError: the store cannot be written.
        ClusterError: Ray does not answer.
    """
    names = library.select(only)
    library.store.check_writable()
    return _train(library, names, progress, ray=lambda: _ray(progress, dashboard=True))


def _train(
    library: Library, names: Sequence[str], progress: Progress, *, ray: Callable[[], AbstractContextManager[None]]
) -> list[RunRecord]:
    """Trains on the Ray that ``ray`` connects to, if there is anything to train."""
    progress.stage("preparing the runs")
    from rave_dist.dataset.read import latest_manifest
    from rave_dist.initial_weights import find_initial_weights, plan_joint_base, write_joint_dataset
    from rave_dist.training.state.initialization import store_initial_weights

    specs: list[TrainingSpec] = []
    refused: dict[str, RunRecord] = {}
    trained: list[RunRecord] = []
    joint = plan_joint_base(library)
    first: list[RunRecord] = []
    with ExitStack() as stack:
        if joint is not None:
            stack.enter_context(ray())
            write_joint_dataset(library.store, joint)
            first = _train_all(library, [joint.spec], progress, progress.runs)
        for name in names:
            try:
                dataset = latest_manifest(library.store, name, library.name).id
                start = find_initial_weights(library, name, joint=_reference(first[0]) if first else "")
            except (DatasetError, ModelNotFoundError, ConfigurationError, LibraryError, TrainingError) as error:
                refused[name] = _failed(library, name, Problem.of(error))
            else:
                base = store_initial_weights(library.store, start) if start is not None else None
                specs.append(library.training_spec(name, dataset=dataset, base=base))
        if specs:
            if joint is None:
                stack.enter_context(ray())
            done = [*first, *refused.values()]
            trained = _train_all(library, specs, progress, lambda records: progress.runs([*done, *records]))
    by_name = refused | {record.instrument: record for record in trained}
    return [by_name[name] for name in names]


def _train_all(
    library: Library, specs: list[TrainingSpec], progress: Progress, runs: Callable[[Sequence[RunRecord]], None]
) -> list[RunRecord]:
    from rave_dist.registry.export import export_run
    from rave_dist.registry.publications import refresh_credit
    from rave_dist.registry.publish import publish
    from rave_dist.registry.store import find
    from rave_dist.training.on_ray import train_library

    export = partial(export_run, name="dry_run")
    records = train_library(library.store, specs, publish=publish, export=export, progress=runs, stage=progress.stage)
    for spec, record in zip(specs, records, strict=True):
        if record.state == "done" and record.model:  # also of a run that ended before its credit was corrected
            refresh_credit(library.store, find(library.store, record.model), spec.credit)
    return records


def publish(library: Library, only: list[str] | None = None, *, progress: Progress = SILENT) -> list[RunRecord]:
    """Publishes models from the newest checkpoints of the named instruments (or all); training can continue afterwards.

    Args:
        library: the library.
        only: names of the instruments.
        progress: receives the number of finished instruments.

    Returns:
        Their records, with the model or the reason why there is none.
    """
    progress.stage("publishing")
    from rave_dist.registry.publish import publish as publish_run
    from rave_dist.training.heartbeat import write_record
    from rave_dist.training.state.outputs import write_outputs_from_checkpoint

    store, records = library.store, status(library, only)
    for index, record in enumerate(records):
        progress.advance(index, len(records), "instruments")
        try:
            if not record.run_id:
                raise TrainingError("the instrument has not been trained yet", fix="run rave-dist train first")
            credit = library.settings(record.instrument).credit or {}
            spec = TrainingSpec.load(store, record.folder.spec).model_copy(update={"credit": credit})
            write_outputs_from_checkpoint(store, spec)
            card = publish_run(store, spec)
            records[index] = record.model_copy(update={"model": card.reference, "verdict": card.verdict})
            if record.state != "running":  # its record belongs to the training command
                write_record(store, records[index])
        except RaveDistError as error:
            records[index] = record.model_copy(update={"error": Problem.of(error)})
    progress.advance(len(records), len(records), "instruments")
    return records


def _reference(base: RunRecord) -> str:
    """The published model of a library's joint base.

    Raises:
        TrainingError: there is none, with the reason.
    """
    if base.state != "done" or base.model is None:
        problem = base.error or Problem(what=f"it is {base.state}", fix="run the same command again to resume")
        raise TrainingError(f"the joint base has no model: {problem.what}", where=base.instrument, fix=problem.fix)
    return base.model


def run(
    library: Library,
    only: list[str] | None = None,
    *,
    progress: Progress = SILENT,
) -> LibraryRun:
    """Runs all stages: check, ingest, train, publish, report. A failed instrument does not stop the others."""
    names = library.select(only)
    checks = check(library, only, progress=progress)
    failed: dict[str, RunRecord] = {}
    for outcome in checks.instruments:
        if not outcome.ok:
            failed[outcome.name] = _failed(library, outcome.name, outcome.problems[0])
    ready = [name for name in names if name not in failed]
    ingested: list[Ingested] = []
    records: dict[str, RunRecord] = {}
    if ready:
        with _ray(progress, dashboard=True):
            ingested = _ingest(library, ready, progress)
            for item in ingested:
                if item.error:
                    failed[item.name] = _failed(library, item.name, item.error)
            ready = [name for name in ready if name not in failed]
            if ready:
                records = {record.instrument: record for record in _train(library, ready, progress, ray=nullcontext)}
    records |= failed
    ordered = [records[name] for name in names]
    return LibraryRun(ordered, ingested, report(library, progress=progress))


def status(library: Library, only: list[str] | None = None) -> list[RunRecord]:
    """The state of each instrument, from the records in the store."""
    from rave_dist.training.heartbeat import read_records

    return read_records(library.store, library.name, library.select(only))


def base_status(library: Library) -> RunRecord | None:
    """The state of the library's joint base; None if the manifest does not request one."""
    from rave_dist.training.heartbeat import read_records

    spec = library.base_spec(dataset="")
    return None if spec is None else read_records(library.store, library.name, [spec.instrument])[0]


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
    with tempfile.TemporaryDirectory(prefix="rave-dist-unpack-") as scratch:
        run = fetch_run(store, card, folder=Path(scratch))
        step = card.step if card.best_step is None else card.best_step
        return write_stock_run(run, folder, step=step, saved=last_checkpoint(store, card.run_folder.checkpoints))


def convert(
    store: Store,
    model: str,
    inputs: list[str],
    output: str,
    *,
    parameters: ConversionParameters,
    chunk_seconds: float,
    workers: int | None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> ConversionRecord:
    """Converts recordings with a published model, in this process if that takes about a minute, otherwise on Ray.

    A number of workers, or ``RAY_ADDRESS``, selects Ray. The output bytes are the same.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: no inputs, or OUTPUT inside or equal to an INPUT.
        ClusterError: Ray does not answer.
    """
    progress.stage("listing recordings")
    from rave_dist.conversion.corpus import plan_conversion
    from rave_dist.conversion.estimate import is_small
    from rave_dist.conversion.job import begin, finish
    from rave_dist.registry.store import find

    report = partial(progress.advance, unit="recordings")
    plan = plan_conversion(find(store, model), inputs, output, parameters)  # before Ray, so that errors appear at once
    job = begin(store, plan, chunk_seconds=chunk_seconds, workers=workers, trust=trust)
    if not workers and not os.environ.get("RAY_ADDRESS") and is_small(plan.card, parameters, job.to_do):
        from rave_dist.conversion import in_process

        progress.stage("converting")
        return finish(job, in_process.convert_all(job), report)
    with _ray(progress):
        from rave_dist.conversion import on_ray

        progress.stage("converting")
        return finish(job, on_ray.convert_all(job, workers=workers), report)


@contextmanager
def _ray(progress: Progress, *, dashboard: bool = False) -> Iterator[None]:
    """Connects to Ray in a context."""
    progress.stage("starting Ray")  # before its import, which takes seconds
    from rave_dist.cluster import connected

    with connected(dashboard=dashboard, say=progress.say):
        yield


def _failed(library: Library, name: str, problem: Problem) -> RunRecord:
    """Writes an instrument's error to its record, for status and the page.

    Models of earlier runs stay in the registry.
    """
    dataset = ""
    spec = library.training_spec(name, dataset=dataset)
    record = RunRecord(
        library=library.name,
        instrument=name,
        run_id=spec.run_id,
        dataset=dataset,
        state="failed",
        steps=spec.budget.steps or 0,
        budget=spec.budget,
        error=problem,
    )
    record.save(library.store, record.key)
    return record
