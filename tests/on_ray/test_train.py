from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from ray.util import placement_group_table

from rave_dist.dataset.on_ray import ingest
from rave_dist.library.manifest import Library
from rave_dist.options import Budget, CheckpointPolicy
from rave_dist.records import DryRunResult, ModelCard, RunActivity, RunRecord, RunResult, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records
from rave_dist.training.on_ray import train_library
from rave_dist.training.state.outputs import read_result
from tests.processes import descendants
from tests.sample_records import model_card, training_spec

pytestmark = pytest.mark.usefixtures("ray_session")

Publish = Callable[[Store, TrainingSpec, Callable[[RunActivity], None]], ModelCard]


@pytest.fixture
def publish() -> Publish:
    """Publishes a card without files, for a run that has left all that a model is made of."""

    blank = model_card()  # made here: in workers, `tests` is a package of acids-rave

    def publish(store: Store, spec: TrainingSpec, report: Callable[[RunActivity], None]) -> ModelCard:
        report("measuring")
        result = RunResult.load(store, spec.folder.result)
        own = {"name": spec.instrument, "version": spec.run_id, "library": spec.library, "run_id": spec.run_id}
        card = blank.model_copy(update={**own, "validation": result.validation})
        card.save(store, card.folder.card)
        return card

    return publish


def _dataset(store: Store, folder: Path, instrument: str) -> str:
    """Six seconds of decaying tones, ingested; the same for every instrument."""
    folder.mkdir(exist_ok=True)
    random, rate = np.random.default_rng(1), 44100
    time = np.arange(6 * rate) / rate
    pitch = random.uniform(150, 900, size=24)[(time * 4).astype(int)]
    sound = 0.5 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * pitch * (time % 0.25))
    soundfile.write(folder / "plucks.wav", sound, rate)
    return ingest(store, instrument, [str(folder)], sample_rate=rate, channels=1, credit={}).id


def _spec(instrument: str, dataset: str, **changes: Any) -> TrainingSpec:
    values = {"budget": Budget(steps=12), "checkpoint": CheckpointPolicy(steps=5), **changes}
    return training_spec(instrument=instrument, dataset=dataset, **values)


def _weights(store: Store, spec: TrainingSpec, folder: Path) -> dict[str, torch.Tensor]:
    path = store.download(spec.folder.weights, folder / f"{spec.run_id}.pt")
    return torch.load(path, weights_only=True)


def test_a_failed_instrument_is_named_and_the_others_finish(any_store: Store, tmp_path: Path, publish: Publish) -> None:
    store = any_store
    dataset = _dataset(store, tmp_path / "plucks", "good")
    _dataset(store, tmp_path / "plucks", "short")
    specs = [
        _spec("good", dataset),
        _spec("short", dataset, window=16384),
        _spec("lost", "0" * 12),
    ]
    told: list[list[RunRecord]] = []
    good, short, lost = train_library(
        store, specs, publish=publish, most=1, progress=lambda records: told.append(list(records))
    )

    assert (good.state, good.phase, good.step, good.steps, good.phase_1_steps) == ("done", 2, 12, 12, 8)
    assert good.model == f"good@{specs[0].run_id}"
    assert good.validation.first is not None
    assert good.validation.last is not None
    assert good.error is None
    assert short.state == "failed"
    assert short.error is not None
    assert "too short" in short.error.what
    assert "window" in short.error.fix
    assert lost.state == "failed"
    assert lost.error is not None
    assert "no dataset" in lost.error.what
    assert [record.instrument for record in told[-1]] == ["good", "short", "lost"]
    waited = [{record.waits_for for record in records if record.state == "waiting"} for records in zip(*told, strict=True)]
    assert waited[1] - {""} == {"its turn (max_concurrent: 1)"}
    assert waited[2] - {""} <= {"its turn (max_concurrent: 1)", "the dry run of good, which serves it too"}
    assert {record.state for records in told for record in records if record.instrument == "good"} >= {"running", "done"}
    assert read_records(store, "band", ["good", "short", "lost"]) == [good, short, lost]

    # What is done is not done again, what failed is tried again.
    before = {entry.key: entry.tag for entry in store.list(specs[0].run_key)}
    again = train_library(store, [specs[0]], publish=publish)
    assert again == [good]
    assert {entry.key: entry.tag for entry in store.list(specs[0].run_key)} == before
    # A model that is missing is published, from the run that is done; so it is when the command was killed after the last step.
    store.delete(f"models/good/{specs[0].run_id}/card.json")
    (republished,) = train_library(store, [specs[0]], publish=publish)
    assert republished.state == "done"
    assert store.exists(f"models/good/{specs[0].run_id}/card.json")
    assert {entry.key: entry.tag for entry in store.list(specs[0].run_key)} == before


def test_a_killed_worker_goes_on_to_the_weights_of_one_that_was_not(
    local_store: Store, tmp_path: Path, publish: Publish
) -> None:
    store = local_store
    specs = [_spec(name, _dataset(store, tmp_path / "plucks", name), budget=Budget(steps=60)) for name in ("killed", "spared")]
    killed: list[int] = []

    def kill() -> None:
        while not any(entry.key.endswith(".json") for entry in store.list(specs[0].folder.checkpoints)):
            time.sleep(0.05)
        worker = read_records(store, "band", ["killed"])[0].worker
        assert worker is not None
        killed.append(int(worker.rpartition(":")[2]))
        os.kill(killed[0], signal.SIGKILL)

    exported = tmp_path / "exported"

    def export(run: Path, out: Path) -> None:
        with exported.open("a") as file:
            file.write("once ")

    told: list[str] = []
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    records = train_library(
        store, specs, publish=publish, export=export, progress=lambda records: told.append(records[1].waits_for)
    )
    killer.join(timeout=10)
    assert [record.state for record in records] == ["done", "done"]
    assert killed
    worker = records[0].worker
    assert worker is not None
    assert worker.rpartition(":")[2] != str(killed[0])
    assert [record.retries for record in records] == [1, 0]
    assert exported.read_text() == "once ", "the dry run of one is that of both"
    assert "the dry run of killed, which serves it too" in told
    assert not store.exists(specs[0].folder.stop)
    assert [record.curve for record in records] == [records[1].curve] * 2
    assert records[1].curve[-1] == (60, records[1].validation.last)
    first, second = (_weights(store, spec, tmp_path) for spec in specs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_of_two_workers_is_published_like_one_of_one_and_survives_its_controller(
    local_store: Store, tmp_path: Path, publish: Publish
) -> None:
    """The controller of Ray Train is killed: what it held is free again although this Ray has no dashboard."""
    store = local_store
    killed: list[int] = []

    def kill() -> None:
        while not any(entry.key.endswith(".json") for entry in store.list(spec.folder.checkpoints)):
            time.sleep(0.05)
        (controller,) = descendants("TrainController")
        controller.kill()
        killed.append(controller.pid)

    manifest = {
        **{"name": "band", "store": store.uri},
        "defaults": {"override": {"CAPACITY": 4, "LATENT_SIZE": 8}, "window": 40960, "batch": 3, "workers": 2},
        "instruments": {"pair": {"sources": [str(tmp_path / "plucks")], "budget": {"steps": 30}, "checkpoint": {"steps": 2}}},
    }
    dataset = _dataset(store, tmp_path / "plucks", "pair")
    spec = Library.from_dict(manifest).training_spec("pair", dataset=dataset)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    (record,) = train_library(store, [spec], publish=publish)
    killer.join(timeout=10)
    assert killed
    assert (record.state, record.error, record.step) == ("done", None, 30)
    assert (record.workers, record.retries) == (2, 1)
    assert record.curve[-1] == (30, record.validation.last)
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())
    assert not descendants("PlacementGroupCleaner")
    assert not [entry.key for entry in store.list(spec.folder.train)]
    single = spec.model_copy(update={"workers": 1})
    assert read_result(store, single) == read_result(store, spec), "the number of workers makes no other run"


def test_a_run_out_of_memory_is_tried_again_alone_and_harms_no_neighbour(
    local_store: Store, tmp_path: Path, publish: Publish
) -> None:
    store = local_store
    override = training_spec().override
    specs = [  # one step under two names, so that both are tested at the same time
        _spec(name, _dataset(store, tmp_path / "plucks", name), budget=Budget(steps=9), override={**override, **default})
        for name, default in (("hungry", {}), ("spared", {"N_BAND": 16}))
    ]
    tried = tmp_path / "tried"

    def export(run: Path, out: Path) -> None:
        """Takes more memory than there is, in the first dry run of one of the instruments."""
        import resource

        if "hungry" in (run / "spec.json").read_text() and not tried.exists():
            tried.touch()
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (1 << 20, before[1]))
            try:
                torch.empty(1 << 30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)

    told: list[tuple[RunRecord, RunRecord]] = []
    hungry, spared = train_library(
        store, specs, publish=publish, export=export, progress=lambda records: told.append((records[0], records[1]))
    )
    assert [hungry.state, spared.state] == ["done", "done"], (hungry.error, spared.error)
    assert (hungry.retries, spared.retries) == (1, 0)
    second = [neighbour for own, neighbour in told if own.retries and own.state == "running"]
    assert second
    assert all(neighbour.activity not in ("starting", "dry run", "training") for neighbour in second), "it is alone"
    waited = [own.waits_for for own, _ in told if own.waits_for]
    assert all("which other work holds" in each for each in waited)
    first, other = (_weights(store, spec, tmp_path) for spec in specs)
    assert all(torch.equal(first[name], other[name]) for name in first)
    results = [DryRunResult.load(store, entry.key) for entry in store.list("dry_runs")]
    assert {result.step_id for result in results} == {spec.step_id for spec in specs}
    assert all(50 << 20 < result.device_bytes < result.host_bytes < 4 << 30 for result in results)


def test_an_interrupted_library_saves_itself_and_goes_on(local_store: Store, tmp_path: Path, publish: Publish) -> None:
    store = local_store
    dataset = _dataset(store, tmp_path / "plucks", "plucks")
    endless = _spec("plucks", dataset, budget=Budget(steps=1_000_000), checkpoint=CheckpointPolicy())

    def interrupted_after(step: int) -> int:
        """Interrupts as soon as a step later than this one is done; returns the step that was saved."""

        def interrupt(records: Sequence[RunRecord]) -> None:
            if records[0].step > step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_library(store, [endless], publish=publish, progress=interrupt)
        (record,) = read_records(store, "band", ["plucks"])
        assert record.state == "waiting"
        assert record.error is None
        result = read_result(store, endless)
        assert result is not None
        assert result.complete is False
        assert result.step > step
        saved = [entry.key for entry in store.list(endless.folder.checkpoints) if entry.key.endswith(".json")]
        assert result.step in [int(key[-14:-5]) for key in saved]
        return result.step

    first = interrupted_after(0)
    curves = store.read_json(endless.folder.metrics)
    assert interrupted_after(first) > first
    later = store.read_json(endless.folder.metrics)
    assert later["validation"][: len(curves["validation"])] == curves["validation"], "what was drawn before the stop stays"


def test_a_terminated_worker_saves_itself_and_the_run_goes_on_in_another(
    local_store: Store, tmp_path: Path, publish: Publish
) -> None:
    store = local_store
    dataset = _dataset(store, tmp_path / "plucks", "plucks")
    spec = _spec("plucks", dataset, budget=Budget(steps=1_000_000), checkpoint=CheckpointPolicy())
    workers: list[str] = []

    def saved() -> list[int]:
        return [int(e.key[-14:-5]) for e in store.list(spec.folder.checkpoints) if e.key.endswith(".json")]

    def terminate(records: Sequence[RunRecord]) -> None:
        (record,) = records
        if record.worker is None or record.step < 1:
            return
        if not workers:
            assert not saved(), "none is due for ten minutes"
            os.kill(int(record.worker.rpartition(":")[2]), signal.SIGTERM)
        if record.worker not in workers:
            workers.append(record.worker)
        if len(workers) == 2 and record.step > max(saved()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_library(store, [spec], publish=publish, progress=terminate)
    assert len(saved()) == 2, "one checkpoint is of the SIGTERM, one of the interrupt"
