"""Runs stages in processes that may be killed: ``python fault_worker.py``; one JSON job ``{stage, root, ...}`` a line.

Each job has a process of its own, forked after the slow imports, whose faulty stores are in ``root``; then this program writes
its exit code: 0 done, 1 a `RaveDistError`, 3 finished in part, 70 an unexpected exception, negative if it was killed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rave_dist import leases
from rave_dist.audio.io.sources import list_sources
from rave_dist.conversion import in_process
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import begin, finish
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import Prepared, prepare
from rave_dist.dataset.read import latest_manifest
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import RaveDistError
from rave_dist.rave.imports import rave_module
from rave_dist.records import ConversionParameters, ExportRecord, RunFolder, RunResult, TrainingSpec
from rave_dist.registry.publish import place, publish
from rave_dist.registry.store import find, model_version
from rave_dist.storage.store import Store
from rave_dist.training.continuation import plan_continuation
from rave_dist.training.heartbeat import Heartbeat, record_of, stop_key, write_record
from rave_dist.training.state.initialization import load_initial_weights, store_initial_weights, weights_of_model
from rave_dist.training.state.outputs import read_result
from rave_dist.training.worker import work

STORE, OUTPUT = "faulty://store", "faulty://output/converted"
LIBRARY, INSTRUMENT, RATE = "band", "plucks", 44100


def spec_of(store: Store) -> TrainingSpec:
    return TrainingSpec(
        library=LIBRARY,
        instrument=INSTRUMENT,
        dataset=latest_manifest(store, INSTRUMENT, LIBRARY).id,
        config=("v2_tiny",),
        override={"CAPACITY": 4},
        sample_rate=RATE,
        channels=1,
        window=40960,
        batch=2,
        budget={"steps": 6},
        seed=3,
        checkpoint={"steps": 2},
    )


def lease(store: Store) -> int:
    """The lease that ingest, training and publishing hold."""
    with leases.hold_library(store, LIBRARY, "train"):
        return 0


def ingest(store: Store, recordings: str) -> int:
    """As `rave_dist.dataset.on_ray.ingest` does it, in this process."""
    recipe, sources = Recipe(sample_rate=RATE, channels=1), list_sources([recordings])
    earlier = load_earlier(store, INSTRUMENT, recipe)
    known = [Prepared(record=record) for source in sources if (record := earlier.record(source)) is not None]
    fresh = [source for source in sources if earlier.record(source) is None]
    outcomes, shards = prepare(fresh, store=store, instrument=INSTRUMENT, recipe=recipe, known=earlier.stored_ids)
    manifest = assemble(
        [*known, *outcomes], [tuple(shards)], instrument=INSTRUMENT, recipe=recipe, credit={"performer": "Ada"}, earlier=earlier
    )
    write_manifest(store, manifest, LIBRARY)
    return 0


def train(store: Store) -> int:
    """As `rave_dist.library_stages` and `rave_dist.training.on_ray` do it, in this process."""
    spec = plan_continuation(store, spec_of(store)).spec
    store.delete(stop_key(spec))
    record, result = record_of(store, spec), read_result(store, spec)
    if result is not None and result.complete:
        write_record(store, record.model_copy(update={"state": "running"}))  # as publishing does
        return 0
    write_record(store, record.model_copy(update={"state": "waiting"}))
    return 0 if work(store, spec, threads=1).state == "running" else 3


def publish_run(store: Store) -> int:
    """The whole of publishing, exports included."""
    spec = spec_of(store)
    card = publish(store, spec)
    write_record(store, record_of(store, spec).model_copy(update={"state": "done", "model": card.reference}))
    return 0


def place_export(store: Store, run: str, out: str) -> int:
    """The part of publishing that writes, with an export that exists."""
    folder = RunFolder(Path(run))
    exported = ExportRecord.model_validate_json(Path(out, "export.json").read_bytes())
    result = RunResult.model_validate_json(Path(folder.result).read_bytes())
    spec = TrainingSpec.model_validate_json(Path(folder.spec).read_bytes())
    further = {"copy": Path(out, "further.bin")}
    place(store, spec, result, exported, Path(out), version=model_version(folder), seconds=60.0, further=further)
    return 0


def base(store: Store, run: str) -> int:
    """The initial weights of a run, written and read."""
    weights = weights_of_model(RunFolder(Path(run)), version="0123456789ab", origin="a model")
    load_initial_weights(store, store_initial_weights(store, weights))
    return 0


def convert(store: Store, recordings: str, model: str) -> int:
    plan = plan_conversion(find(store, model), [recordings], OUTPUT, ConversionParameters(format="flac"))
    job = begin(store, [plan], chunk_seconds=10.0)
    (record,) = finish(job, in_process.convert_all(job))
    return 3 if record.failed else 0


STAGES: dict[str, Callable[..., int]] = {
    "lease": lease,
    "ingest": ingest,
    "train": train,
    "publish": publish_run,
    "place": place_export,
    "base": base,
    "convert": convert,
}


def work_on(job: dict[str, Any]) -> int:
    os.environ["FAULTY_STORES"] = job.pop("root")
    tempfile.tempdir = job.pop("scratch")
    logging.disable()
    torch.set_num_threads(1)
    defaults = Heartbeat.__init__.__kwdefaults__
    assert defaults is not None
    defaults["every"] = 3600.0  # no write whose moment depends on how fast the machine is
    leases._WATCHED_BEATS = 0.1  # a second is enough to see that a killed holder gives no sign of life
    try:
        return STAGES[job.pop("stage")](Store(STORE), **job)
    except RaveDistError as error:
        print(f"  {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    rave_module()  # imports RAVE, once for all children
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            try:
                os._exit(work_on(json.loads(line)))
            finally:  # an unexpected exception
                traceback.print_exc()
                os._exit(70)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
