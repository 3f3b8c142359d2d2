"""Ingest and training of a library, within its lease and a connection to Ray.

Instruments are independent: an error of one is kept in its record and the others continue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rave_dist.errors import (
    ConfigurationError,
    DamagedObjectError,
    DatasetError,
    LibraryError,
    ModelNotFoundError,
    RaveDistError,
    TrainingError,
)
from rave_dist.library.manifest import Library
from rave_dist.progress import Progress
from rave_dist.records import DatasetManifest, Problem, RunRecord, TrainingSpec
from rave_dist.storage.parallel import at_once

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights

_OF_ONE_INSTRUMENT = (
    ConfigurationError,
    DamagedObjectError,
    DatasetError,
    LibraryError,
    ModelNotFoundError,
    TrainingError,
)


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


def ingest_library(library: Library, names: Sequence[str], progress: Progress) -> list[Ingested]:
    """Converts the recordings of the named instruments to datasets."""
    from rave_dist.dataset.on_ray import ingest as ingest_instrument

    progress.stage("reading recordings")
    _let_wait(library, names, "the recordings of all instruments to be read")
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


def train_library(
    library: Library,
    names: Sequence[str],
    progress: Progress,
    *,
    ray: Callable[[], AbstractContextManager[None]],
    deadline: float | None = None,
) -> list[RunRecord]:
    """Trains on the Ray that ``ray`` connects to, if there is anything to train.

    A ``deadline``, a time of `time.monotonic`, limits the budgets; a joint base gets at most half of the time.
    """
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
            _let_wait(library, names, "the joint base")
            half = None if deadline is None else (time.monotonic() + deadline) / 2
            first = _train_all(library, [joint.spec], progress, progress.runs, deadline=half)

        def prepare(name: str) -> tuple[str, InitialWeights | None] | RaveDistError:
            try:
                dataset = latest_manifest(library.store, name, library.name).id
                return dataset, find_initial_weights(library, name, joint=_reference(first[0]) if first else "")
            except _OF_ONE_INSTRUMENT as error:
                return error

        stored: dict[str, str] = {}
        for name, prepared in zip(names, at_once(prepare, names), strict=True):
            if isinstance(prepared, RaveDistError):
                refused[name] = write_failure(library, name, Problem.of(prepared))
                continue
            dataset, start = prepared
            if start is not None and start.id not in stored:
                stored[start.id] = store_initial_weights(library.store, start)
            specs.append(library.training_spec(name, dataset=dataset, base=None if start is None else stored[start.id]))
        if specs:
            if joint is None:
                stack.enter_context(ray())
            done = [*first, *refused.values()]
            trained = _train_all(library, specs, progress, lambda records: progress.runs([*done, *records]), deadline=deadline)
    by_name = refused | {record.instrument: record for record in trained}
    return [by_name[name] for name in names]


def _train_all(
    library: Library,
    specs: list[TrainingSpec],
    progress: Progress,
    runs: Callable[[Sequence[RunRecord]], None],
    *,
    deadline: float | None,
) -> list[RunRecord]:
    from rave_dist.registry.export import try_export
    from rave_dist.registry.publications import refresh_credit
    from rave_dist.registry.publish import publish
    from rave_dist.registry.store import find
    from rave_dist.training.continuation import plan_continuation
    from rave_dist.training.on_ray import train_library as train_runs

    most = library.manifest.max_concurrent
    if deadline is not None:
        specs = _limited(library, specs, progress, seconds=deadline - time.monotonic())
    planned = at_once(partial(plan_continuation, library.store), specs)
    for run in planned:
        if run.note:
            progress.say(f"{run.spec.instrument}: {run.note}")
    specs = [run.spec for run in planned]
    records = train_runs(
        library.store, specs, publish=publish, export=try_export, most=most, progress=runs, stage=progress.stage
    )

    def correct_credit(spec: TrainingSpec, record: RunRecord) -> None:
        if record.state == "done" and record.model:  # also of a run that ended before its credit was corrected
            refresh_credit(library.store, find(library.store, record.model), spec.credit)

    at_once(lambda pair: correct_credit(*pair), zip(specs, records, strict=True))
    return records


def _limited(library: Library, specs: list[TrainingSpec], progress: Progress, *, seconds: float) -> list[TrainingSpec]:
    """The runs with budgets that end within a deadline on the cluster as it is."""
    from rave_dist.cluster.hosts import Cluster
    from rave_dist.training.deadline import limit_budgets

    progress.stage("planning")
    limited = limit_budgets(library.store, specs, Cluster.now().hosts, seconds=seconds, most=library.manifest.max_concurrent)
    if limited.share < 1:
        progress.say(f"to end within the deadline, the runs get {100 * limited.share:.2g} % of the time that they need")
    return limited.specs


def _let_wait(library: Library, names: Sequence[str], reason: str) -> None:
    """Writes to the records of waiting instruments what they wait for."""
    from rave_dist.training.heartbeat import read_records, write_record

    waiting = [record for record in read_records(library.store, library.name, names) if record.state == "waiting"]
    at_once(lambda record: write_record(library.store, record.model_copy(update={"waits_for": reason})), waiting)


def write_failure(library: Library, name: str, problem: Problem) -> RunRecord:
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


def _reference(base: RunRecord) -> str:
    """The published model of a library's joint base.

    Raises:
        TrainingError: there is none, with the reason.
    """
    if base.state != "done" or base.model is None:
        problem = base.error or Problem(what=f"it is {base.state}", fix="run the same command again to resume")
        raise TrainingError(f"the joint base has no model: {problem.what}", where=base.instrument, fix=problem.fix)
    return base.model
