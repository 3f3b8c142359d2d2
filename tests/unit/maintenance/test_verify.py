"""A whole store has no problem; whatever is removed, cut or changed in it is named, on a folder and on a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rave_dist.audio.io.sources import list_sources
from rave_dist.cli import app
from rave_dist.conversion import in_process
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import begin, finish
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import ConfigurationError, StoreError
from rave_dist.exit_codes import PARTIAL
from rave_dist.maintenance.verify import Part, verify
from rave_dist.records import ConversionParameters, RunFolder
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import record_of, write_record
from rave_dist.training.state.checkpoint import save_checkpoint
from tests.conftest import TinyModel

pytestmark = pytest.mark.slow

RATE = 44100


def fill(store: Store, model: TinyModel, folder: Path) -> None:
    """A dataset, a run with a checkpoint, a model and a conversion, each written by the stage that writes it."""
    wav = folder / "take.wav"
    soundfile.write(wav, 0.3 * np.random.default_rng(1).standard_normal(2 * RATE), RATE, subtype="PCM_16")
    recipe, name = Recipe(sample_rate=RATE, channels=1), model.spec.instrument
    earlier = load_earlier(store, name, recipe)
    outcomes, shards = prepare(list_sources([str(wav)]), store=store, instrument=name, recipe=recipe, known=frozenset())
    dataset = assemble(outcomes, [tuple(shards)], instrument=name, recipe=recipe, credit={}, earlier=earlier)
    write_manifest(store, dataset, "tiny")
    spec = model.spec.model_copy(update={"dataset": dataset.id})
    run = RunFolder(model.run)
    for local, key in ((run.config, spec.folder.config), (run.weights, spec.folder.weights), (run.result, spec.folder.result)):
        store.upload(local, key)
    spec.save(store, spec.folder.spec)
    save_checkpoint(store, spec.folder.checkpoints, 4, {"step": 4})
    card = model.publish(store)
    write_record(store, record_of(store, spec).model_copy(update={"state": "done", "model": card.reference}))
    plan = plan_conversion(card, [str(wav)], str(folder / "converted"), ConversionParameters(format="flac"))
    job = begin(store, [plan], chunk_seconds=10.0)
    assert finish(job, in_process.convert_all(job))[0].converted == 1


def the_one(store: Store, end: str) -> str:
    (key,) = [entry.key for entry in store.list() if entry.key.endswith(end)]
    return key


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# What is done to which file, and what is said of it; flipped bits are only seen by reading.
DAMAGES: list[tuple[str, Callable[[bytes], bytes] | None, str]] = [
    (".parquet", None, "missing"),
    (".parquet", cut, "bytes instead of"),
    ("manifest.json", cut, "not valid JSON"),
    ("manifest.json", lambda data: b'{"id": 1}', "not a valid DatasetManifest"),
    ("manifest.json", None, "missing"),
    ("latest/tiny.json", cut, "not valid JSON"),
    ("/record.json", lambda data: b"", "not valid JSON"),
    ("result.json", lambda data: b"[]", "not a valid RunResult"),
    ("weights.pt", None, "missing"),
    ("weights.pt", lambda data: b"", "empty"),
    ("weights.pt", cut, "not a zip file"),
    ("weights.pt", lambda data: data[:-1], "not a zip file"),
    ("config.gin", None, "missing"),
    ("spec.json", cut, "not valid JSON"),
    ("step-000000004.pt", None, "missing"),
    ("step-000000004.json", cut, "not valid JSON"),
    ("_streaming.ts", None, "missing"),
    ("_streaming.ts", cut, "bytes instead of"),
    ("card.json", cut, "not valid JSON"),
    ("card.json", None, "missing"),
    ("00000001.json", cut, "not valid JSON"),
    ("request.json", cut, "not valid JSON"),
]
FLIPPED = (".parquet", "weights.pt", "step-000000004.pt", "_streaming.ts")


def test_every_damage_is_named_and_nothing_else(any_store: Store, tiny_model: TinyModel, tmp_path: Path) -> None:
    fill(any_store, tiny_model, tmp_path)
    whole = verify(any_store, part=Part(1, 1))
    assert whole.problems == {}
    assert whole.ok
    assert whole.files_read == len(FLIPPED) + 1  # and the offline export
    everything = [(*damage, False) for damage in DAMAGES] + [(end, flip, "content", True) for end in FLIPPED]
    for end, damage, said, only_read in everything:
        matching = [entry.key for entry in any_store.list() if entry.key.endswith(end) and "conversions" not in entry.key]
        key = matching[0] if matching else the_one(any_store, end)
        data = any_store.read_bytes(key)
        if damage is None:
            any_store.delete(key)
        else:
            any_store.write_bytes(key, damage(data))
        found = verify(any_store, part=Part(1, 1) if only_read else None)
        assert list(found.problems) == [key], (end, found.problems)
        assert said in found.problems[key].what, end
        assert found.problems[key].fix
        if only_read:
            assert verify(any_store).ok, "without reading it cannot be seen"
        any_store.write_bytes(key, data)
    assert verify(any_store, part=Part(1, 1)).ok


def test_the_parts_together_are_all_files(local_store: Store, tiny_model: TinyModel, tmp_path: Path) -> None:
    fill(local_store, tiny_model, tmp_path)
    for entry in list(local_store.list()):
        if entry.key.endswith(FLIPPED):
            local_store.write_bytes(entry.key, flip(local_store.read_bytes(entry.key)))
    parts = [verify(local_store, part=Part(number, 3)) for number in (1, 2, 3)]
    assert sum(part.files_read for part in parts) == len(FLIPPED) + 1
    named = [key for part in parts for key in part.problems]
    assert len(named) == len(set(named)) == len(FLIPPED)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a part"):
        Part.parse(text)


def test_a_misspelt_address_is_no_whole_store(any_store: Store) -> None:
    any_store.write_bytes("takes/notes.txt", b"of somebody else")
    with pytest.raises(StoreError, match="nothing of rave-dist"):
        verify(any_store)


def run(*arguments: str) -> tuple[int, Any]:
    answer = CliRunner().invoke(app, ["verify", *arguments, "--json"])
    return answer.exit_code, json.loads(answer.stdout)


def test_the_command_names_problems_and_ends_with_3(local_store: Store, tiny_model: TinyModel, tmp_path: Path) -> None:
    fill(local_store, tiny_model, tmp_path)
    code, document = run("--store", local_store.uri)
    assert (code, document["ok"], document["files_read"], document["problems"]) == (0, True, 0, [])
    (shard,) = [entry.key for entry in local_store.list("datasets/") if entry.key.endswith(".parquet")]
    local_store.write_bytes(shard, flip(local_store.read_bytes(shard)))
    assert run("--store", local_store.uri)[0] == 0
    for option in ("--read-data", "--read-data=1/1"):
        code, document = run(option, "--store", local_store.uri)
        assert code == PARTIAL
        (problem,) = document["problems"]
        assert problem["key"] == shard
        assert "sha256" in problem["what"]
        assert "ingest" in problem["fix"]
    answer = CliRunner().invoke(app, ["verify", "--store", local_store.uri, "--read-data"])
    assert answer.exit_code == PARTIAL
    assert shard in answer.output
    assert "1 problem" in answer.output
    assert CliRunner().invoke(app, ["verify", "--store", local_store.uri, "--read-data=5/4"]).exit_code == 1


def test_a_store_in_use_has_no_problems(local_store: Store, tiny_model: TinyModel, tmp_path: Path) -> None:
    """Sets of files without their marker are not complete yet, and a checkpoint may go while it is looked at."""
    fill(local_store, tiny_model, tmp_path)
    for end in ("card.json", "result.json", "step-000000004.json", "runs/tiny/tiny-0/record.json"):
        local_store.delete(the_one(local_store, end))
    assert verify(local_store, part=Part(1, 1)).ok
