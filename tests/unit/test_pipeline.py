"""What a run that was cut has so far becomes a model, and the run goes on; no Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from rave_dist.audio.io.sources import list_sources
from rave_dist.cli import app
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import prepare
from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.split import split_dataset
from rave_dist.errors import DatasetError
from rave_dist.leases import hold_library
from rave_dist.library.manifest import load_library
from rave_dist.library_stages import ingest_library
from rave_dist.pipeline import status
from rave_dist.progress import SILENT
from rave_dist.records import ModelCard, TrainingSpec
from rave_dist.registry.store import find
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records, record_of, write_record
from rave_dist.training.state.outputs import read_result, write_outputs_from_checkpoint
from rave_dist.training.trainer import train

pytestmark = pytest.mark.slow

MANIFEST = """
name: band
store: ./store
defaults: {config: v2_tiny, override: {CAPACITY: 4}, window: 40960, batch: 2, budget: {steps: 9}, checkpoint: {steps: 4}}
instruments:
  plucks: {sources: [plucks.wav]}
  bells: {sources: [plucks.wav]}
"""


class Killed(Exception):
    """In the place of a SIGKILL: nothing of the loop runs after it."""


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Store, TrainingSpec]:
    """A library, and the run of one of its instruments, not begun."""
    rate = 44100
    time = np.arange(8 * rate) / rate
    soundfile.write(tmp_path / "plucks.wav", 0.5 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * 330 * time), rate)
    path = tmp_path / "band.yaml"
    path.write_text(MANIFEST)
    library = load_library(path)
    recipe = Recipe(sample_rate=rate, channels=1)
    earlier = load_earlier(library.store, "plucks", recipe)
    sources = list_sources(library.sources("plucks"))
    outcomes, shards = prepare(sources, store=library.store, instrument="plucks", recipe=recipe, known=frozenset())
    manifest = assemble(outcomes, [tuple(shards)], instrument="plucks", recipe=recipe, credit={}, earlier=earlier)
    dataset = write_manifest(library.store, manifest, library.name).id
    return path, library.store, library.training_spec("plucks", dataset=dataset)


def go(store: Store, spec: TrainingSpec, *, killed_at: int | None = None, stopped_at: int | None = None) -> None:
    torch.set_num_threads(1)
    audio = split_dataset(store, load_manifest(store, spec.instrument, spec.dataset), window=40960)
    now = 0

    def tell(state: Any, speed: float | None) -> None:
        nonlocal now
        now = state.step
        if now == killed_at:
            raise Killed

    train(store, spec, audio.train, audio.validation, on_progress=tell, stop=lambda: now == stopped_at)
    write_record(store, record_of(store, spec))


def publish(path: Path, code: int) -> dict[str, Any]:
    answer = CliRunner().invoke(app, ["publish", str(path), "--json"])
    assert answer.exit_code == code, answer.output
    return {each["name"]: each for each in json.loads(answer.stdout)["instruments"]}


def weights(store: Store, spec: TrainingSpec, folder: Path, file: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(store.download(f"{spec.run_key}/{file}", folder / file), weights_only=True)
    return loaded


def test_a_killed_run_is_published_as_it_stands_and_goes_on(run: tuple[Path, Store, TrainingSpec]) -> None:
    path, store, spec = run
    told = publish(path, 3)
    assert {name: each["error"]["what"] for name, each in told.items()} == dict.fromkeys(
        ("plucks", "bells"), "the instrument has not been trained yet"
    )
    with pytest.raises(Killed):
        go(store, spec, killed_at=5)
    write_record(store, record_of(store, spec))
    assert read_result(store, spec) is None

    told = publish(path, 3)
    assert told["bells"]["error"]
    assert told["plucks"]["error"] is None
    young: ModelCard = find(store, "plucks")
    assert told["plucks"]["model"] == young.reference
    assert (young.complete, young.step, young.phase) == (False, 4, 1)
    assert publish(path, 3)["plucks"]["model"] == young.reference

    go(store, spec)
    assert publish(path, 3)["plucks"]["model"] != young.reference
    grown = find(store, "plucks")
    assert (grown.complete, grown.step, grown.phase) == (True, 9, 2)


def test_a_checkpoint_leaves_what_the_run_left_when_it_was_stopped_there(
    run: tuple[Path, Store, TrainingSpec], tmp_path: Path
) -> None:
    _, store, spec = run
    go(store, spec, stopped_at=6)  # where phase 1 ends, which is validated
    left = weights(store, spec, tmp_path, "weights.pt")
    result = read_result(store, spec)
    assert result is not None
    result.model_copy(update={"step": 4}).save(store, spec.folder.result)  # of an earlier stop
    store.delete(spec.folder.weights)
    write_outputs_from_checkpoint(store, spec, store)
    assert read_result(store, spec) == result
    again = weights(store, spec, tmp_path, "weights.pt")
    assert all(torch.equal(value, again[name]) for name, value in left.items())
    store.delete(spec.folder.weights)
    write_outputs_from_checkpoint(store, spec, store)  # nothing newer to leave
    assert not store.exists(spec.folder.weights)


def test_while_recordings_are_read_the_instruments_say_what_they_wait_for(
    run: tuple[Path, Store, TrainingSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store, spec = run
    library, said = load_library(path), dict[str, list[str]]()
    write_record(store, record_of(store, spec).model_copy(update={"state": "done"}))

    def ingest(_: Store, name: str, *args: Any, **options: Any) -> None:
        said[name] = [record.waits_for for record in read_records(store, "band", library.instruments)]
        raise DatasetError("not this time")

    monkeypatch.setattr("rave_dist.dataset.on_ray.ingest", ingest)
    ingest_library(library, library.instruments, SILENT)
    assert said["plucks"] == said["bells"] == ["", "the recordings of all instruments to be read"]
    assert [record.waits_for for record in status(library)] == ["", ""], "no command is at work any more"


def test_publishing_beside_a_training_command_writes_no_run(run: tuple[Path, Store, TrainingSpec]) -> None:
    path, store, spec = run
    with pytest.raises(Killed):
        go(store, spec, killed_at=5)
    write_record(store, record_of(store, spec))
    before = {entry.key: entry.tag for entry in store.list("runs")}
    with hold_library(store, "band", "train"):
        model = publish(path, 3)["plucks"]["model"]
    assert {entry.key: entry.tag for entry in store.list("runs")} == before
    card = find(store, "plucks")
    assert (card.reference, card.complete, card.step) == (model, False, 4)
    assert publish(path, 3)["plucks"]["model"] == model
    assert read_result(store, spec) is not None


def document(command: str, path: Path, *options: str) -> dict[str, Any]:
    answer = CliRunner().invoke(app, [command, str(path), "--json", *options])
    assert answer.exit_code in (0, 3), answer.output
    value: dict[str, Any] = json.loads(answer.stdout)
    return value


def test_status_check_and_publish_after_a_change_of_the_manifest_and_of_the_recordings(
    run: tuple[Path, Store, TrainingSpec],
) -> None:
    path, store, spec = run
    go(store, spec)
    publish(path, 3)
    plucks, bells = document("status", path)["instruments"]
    assert (plucks["outdated"], bells["outdated"]) == ([], [])

    larger = MANIFEST.replace("steps: 9", "steps: 16").replace("plucks: {sources: [plucks.", "plucks: {sources: [plucks*.")
    path.write_text(larger.replace("plucks*.wav]", "plucks*.wav], seed: 5"))
    (plucks, _) = document("status", path)["instruments"]
    assert plucks["outdated"] == ["this run belongs to an earlier manifest: budget, seed changed since"]
    (told,) = document("check", path, "--only", "plucks")["instruments"]
    assert "starts at step 0: other settings than the run of 9 steps (budget, seed)" in [w["what"] for w in told["warnings"]]

    path.write_text(larger)
    (told,) = document("check", path, "--only", "plucks")["instruments"]
    assert "continues the run of 9 steps" in [warning["what"] for warning in told["warnings"]]
    assert (told["steps"], told["phase_1_steps"]) == (16, 6)

    shutil.copy(path.parent / "plucks.wav", path.parent / "plucks-2.wav")
    (plucks, _) = document("status", path)["instruments"]
    assert plucks["outdated"] == [
        "this run belongs to an earlier manifest: budget changed since",
        "the recordings are not those of this run: 1 new or changed",
    ]
    (told,) = document("check", path, "--only", "plucks")["instruments"]
    assert "starts at step 0: other settings than the run of 9 steps (recordings, budget)" in [
        warning["what"] for warning in told["warnings"]
    ]

    credit = {"performer": "Ada", "licence": "CC0-1.0"}
    first = find(store, "plucks")
    path.write_text(MANIFEST.replace("plucks: {", "plucks: {credit: {performer: Ada, licence: CC0-1.0}, "))
    assert publish(path, 3)["plucks"]["model"] == first.reference
    card = find(store, "plucks")
    assert (card.credit, [past.credit for past in card.past_credits]) == (credit, [{}])
