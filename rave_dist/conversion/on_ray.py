"""A corpus through a model on Ray Data: a pool of actors, each with the model in memory; one file is one piece of work."""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
import torch
from ray.exceptions import RayError

from rave_dist.conversion.convert import DEFAULT_CHUNK_SECONDS, Converter, chunk_samples
from rave_dist.conversion.corpus import Plan, Task, plan_conversion, split_done
from rave_dist.conversion.item import Outcome, convert_item
from rave_dist.errors import ClusterError, ConversionError, RaveDistError
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard, now
from rave_dist.registry.store import fetch
from rave_dist.storage import Store

_MAX_BLOCKS = 2000  # of Ray Data; what a block costs is some milliseconds
_LOST_WORKER_RETRIES = 2


def convert_corpus(
    store: Store,
    card: ModelCard,
    inputs: Sequence[str],
    output: str,
    *,
    parameters: ConversionParameters,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionRecord:
    """Converts files and folders, all that is not done already; needs a connected Ray.

    Args:
        store: of the library: the model is read from it, journal and record are written to it.
        card: the model.
        inputs: files, folders, globs, s3:// prefixes.
        output: a folder, an s3:// prefix, or for one source the file itself.
        parameters: all that decides the samples.
        chunk_seconds: of sound in the model at once.
        workers: files at once; one per GPU, or where there are none one per CPU but one, unless given.
        progress: told how many sources are done, and of how many.

    Returns:
        the record, which also lies in the store as ``conversions/<id>/record.json``. Sources that failed are named in it.

    Raises:
        ConversionError: see `plan_conversion`; chunks too short; workers below 1; the device is out of memory.
        AudioError: an input that no recording matches.
        StoreError: an input, OUTPUT or the store cannot be used.
        ClusterError: workers keep dying.
    """
    chunk_samples(card, chunk_seconds)
    if workers is not None and workers < 1:
        raise ConversionError("a conversion needs at least one worker", fix="give --workers 1 or more")
    plan = plan_conversion(card, inputs, output, parameters)
    plan.output.check_writable()
    store.write_json(
        f"{plan.key}/request.json", {"model": card.reference, "parameters": plan.parameters.to_json(), "output": output}
    )
    to_do, done = split_done(store, plan)
    outcomes = [Outcome(item, skipped=True) for item in done]
    report = progress or (lambda count, total: None)
    report(len(outcomes), len(plan.tasks))
    for outcome in _converted(store, plan, to_do, chunk_seconds, workers):
        outcomes.append(outcome)
        report(len(outcomes), len(plan.tasks))
    record = _record(plan, outcomes)
    store.write_json(f"{plan.key}/record.json", record.to_json())
    return record


def _record(plan: Plan, outcomes: list[Outcome]) -> ConversionRecord:
    outcomes = sorted(outcomes, key=lambda outcome: outcome.item.source)
    fresh = [o.item for o in outcomes if not o.skipped and o.item.state != "failed"]
    return ConversionRecord(
        id=plan.id,
        model=plan.card.reference,
        parameters=plan.parameters,
        converted=len(fresh),
        skipped=sum(o.skipped for o in outcomes),
        failed=tuple(o.item for o in outcomes if o.item.state == "failed"),
        salvaged=tuple(o.item for o in outcomes if o.item.state == "salvaged"),
        seconds=sum(item.seconds for item in fresh),
        created_at=now(),
    )


def _converted(store: Store, plan: Plan, tasks: list[Task], chunk_seconds: float, workers: int | None) -> Iterator[Outcome]:
    """Outcomes of tasks in the order in which they end."""
    if not tasks:
        return
    _quiet()
    pool, resources = _resources(len(tasks), workers)
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(
        cast(Any, _Worker),
        fn_constructor_args=(store, plan, chunk_seconds),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=pool, initial_size=pool, max_tasks_in_flight_per_actor=1
        ),  # one at a time: a long file must not have others wait behind it
        max_restarts=_LOST_WORKER_RETRIES,
        max_task_retries=_LOST_WORKER_RETRIES,
        **resources,
    )
    try:
        for row in dataset.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, RaveDistError):
                raise outcome
            yield outcome
    except RayError as error:
        raise ClusterError(
            f"the workers died again and again ({str(error).splitlines()[0]})",
            where=plan.card.reference,
            fix="if memory ran out, take fewer workers or shorter chunks; the same command goes on where it stopped",
        ) from error


def _resources(num_tasks: int, workers: int | None) -> tuple[int, dict[str, Any]]:
    """Actors of the pool, and what each of them takes. Something of a CPU always stays free: Ray Data needs it to go on."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0)
    count = min(num_tasks, workers or int(gpus) or max(1, int(cpus) - 1))
    spare = min(1.0, cpus / 2)
    resources: dict[str, Any] = {"num_cpus": max(0.01, int(100 * min(1.0, (cpus - spare) / count)) / 100)}
    if gpus >= 1:
        resources["num_gpus"] = min(1.0, int(100 * gpus / count) / 100)
    return count, resources


def _quiet() -> None:
    """Progress is ours to show, on stderr and through the callback."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Worker:
    """An actor of the pool: fetches the model once, then converts one source after another."""

    def __init__(self, store: Store, plan: Plan, chunk_seconds: float) -> None:
        torch.set_num_threads(1)  # there is a worker for every CPU; and the same samples on any number of them
        self._store, self._plan, self._chunk_seconds = store, plan, chunk_seconds
        self._converter: Converter | None = None
        self._device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Converts ``task``. An error that concerns every source is the outcome, so that it crosses to the driver whole."""
        outcome: Outcome | RaveDistError
        try:
            if self._converter is None:
                with tempfile.TemporaryDirectory(prefix="rave-dist-model-") as folder:
                    path = fetch(self._store, self._plan.card, "offline", folder=Path(folder))
                    self._converter = Converter(path, self._plan.card, device=self._device)
            task = pickle.loads(row["task"])
            outcome = convert_item(self._store, self._plan, task, self._converter, chunk_seconds=self._chunk_seconds)
        except RaveDistError as error:
            outcome = error
        return {"outcome": pickle.dumps(outcome)}
