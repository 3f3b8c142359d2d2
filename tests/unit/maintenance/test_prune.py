"""What a store no longer needs is listed with its size, removed on request, and nothing else is."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from rave_dist.cli import app
from rave_dist.errors import ConfigurationError, StoreError
from rave_dist.leases import hold_library
from rave_dist.maintenance.prune import find_removable, remove
from rave_dist.maintenance.verify import verify
from rave_dist.options import Budget
from rave_dist.records import (
    BaseFolder,
    BaseRecord,
    Continuation,
    ConversionFolder,
    ConversionParameters,
    ConversionRequest,
    DatasetFolder,
    DatasetManifest,
    DatasetPointer,
    ModelCard,
    RunRecord,
    RunResult,
    Shard,
    TrainingSpec,
    Validation,
    now,
)
from rave_dist.registry.store import find, list_models
from rave_dist.storage.store import Store
from tests.file_systems import as_somebody_else
from tests.sample_records import dry_run_result

Publish = Callable[..., ModelCard]


def _spec(steps: int = 9, **changes: Any) -> TrainingSpec:
    values = {"library": "band", "instrument": "drums", "dataset": "kept", "config": ("v2_tiny",), "sample_rate": 44100}
    return TrainingSpec(**{**values, "channels": 1, "budget": Budget(steps=steps), "seed": 3, **changes})


def _run(store: Store, spec: TrainingSpec, *, complete: bool = True, checkpoint: bool = True) -> TrainingSpec:
    spec.save(store, spec.folder.spec)
    store.write_bytes(spec.folder.weights, b"weights")
    if checkpoint:
        for ending in (".pt", ".json"):
            store.write_bytes(f"{spec.folder.checkpoints}/step-000000009{ending}", b"12345")
    fields = {"phase": 2, "step": 9, "best_step": 9, "steps": 9, "phase_1_steps": 6, "seconds": 1.0}
    RunResult(**fields, complete=complete, validation=Validation()).save(store, spec.folder.result)
    return spec


def _dataset(store: Store, dataset: str, *shards: str) -> None:
    for shard in shards:
        store.write_bytes(f"{DatasetFolder.shards('drums')}/{shard}.parquet", b"pcm")
    manifest = DatasetManifest(
        **{"id": dataset, "instrument": "drums", "sample_rate": 44100, "channels": 1, "sources": (), "rejected": ()},
        shards=tuple(
            Shard(key=f"{DatasetFolder.shards('drums')}/{shard}.parquet", source_ids=(), bytes=3, seconds=1.0)
            for shard in shards
        ),
        used_seconds=1.0,
        created_at=now(),
    )
    manifest.save(store, manifest.folder.manifest)


def _found(store: Store, keep: int = 0) -> set[str]:
    return {f"{item.kind}: {item.place}" for item in find_removable(store, keep=keep)}


def _keys(store: Store) -> set[str]:
    return {entry.key for entry in store.list()}


def test_checkpoints_of_finished_runs_go_and_those_that_are_needed_stay(any_store: Store) -> None:
    done, cut = _run(any_store, _spec()), _run(any_store, _spec(seed=4), complete=False)
    start = _run(any_store, _spec(seed=5))
    continues = Continuation(run_id=start.run_id, step=9)
    _run(any_store, _spec(18, seed=5, continues=continues), complete=False, checkpoint=False)
    forgotten = _run(any_store, _spec(seed=6))
    RunRecord(library="band", instrument="drums", run_id=done.run_id, dataset="kept").save(
        any_store, "runs/band/drums/record.json"
    )
    assert _found(any_store) == {f"checkpoints: {done.folder.checkpoints}", f"runs: {forgotten.run_key}"}
    for item in find_removable(any_store):
        remove(any_store, item)
    assert _found(any_store) == set()
    assert any_store.exists(done.folder.weights)
    assert any_store.exists(f"{cut.folder.checkpoints}/step-000000009.pt")
    assert any_store.exists(f"{start.folder.checkpoints}/step-000000009.pt")
    assert not list(any_store.list(forgotten.run_key))


def test_data_that_nothing_refers_to_goes(any_store: Store) -> None:
    _dataset(any_store, "kept", "shard-a", "shard-b")
    _dataset(any_store, "of the pointer", "shard-b", "shard-c")
    _dataset(any_store, "of an older recipe", "shard-d")
    _dataset(any_store, "forgotten", "shard-a", "shard-e")
    pointer = DatasetPointer(id="of the pointer", recipes={"old": "of an older recipe"})
    pointer.save(any_store, DatasetFolder.latest("drums", "band"))
    _run(any_store, _spec(base="0123456789ab"), complete=False)
    for base in ("0123456789ab", "ba9876543210"):
        any_store.write_bytes(BaseFolder.of(base).weights, b"weights")
        BaseRecord(origin="a run").save(any_store, BaseFolder.of(base).record)
    for number, instrument in enumerate(("drums", "gone")):
        result = dry_run_result(_spec(instrument=instrument), id=str(number))
        result.save(any_store, result.key)
    any_store.write_bytes("report/band/index.html", b"page")
    any_store.write_bytes("notes/mine.txt", b"not ours")
    before = _keys(any_store)
    assert _found(any_store) == {
        "datasets: datasets/drums/forgotten",
        "shards: datasets/drums/shards/shard-e.parquet",
        "bases: bases/ba9876543210",
        "dry runs: dry_runs/1.json",
    }
    for item in find_removable(any_store):
        remove(any_store, item)
    assert _keys(any_store) == before - {
        "datasets/drums/forgotten/manifest.json",
        "datasets/drums/shards/shard-e.parquet",
        "bases/ba9876543210/weights.pt",
        "bases/ba9876543210/base.json",
        "dry_runs/1.json",
    }


def test_old_versions_go_unless_something_refers_to_them(any_store: Store, publish_tiny: Publish, tiny_models: Any) -> None:
    cards = [publish_tiny(any_store, "drums", number) for number in range(4)]
    for tiny in tiny_models:
        _run(any_store, tiny.spec.model_copy(update={"instrument": "drums"}), checkpoint=False)
    oldest, second, third, latest = cards
    assert find(any_store, "drums") == latest
    removable = {f"models: {card.key}" for card in (oldest, second)} | {f"runs: {card.run_key}" for card in (oldest, second)}
    assert _found(any_store, keep=1) == removable
    assert _found(any_store, keep=2) == {f"models: {oldest.key}", f"runs: {oldest.run_key}"}
    assert _found(any_store, keep=3) == set()

    # A record, initial weights, and a conversion in progress need one each.
    record = RunRecord(library="tiny", instrument="drums", run_id=oldest.run_id, dataset="", model=oldest.reference)
    record.save(any_store, record.key)
    assert _found(any_store, keep=1) == {f"models: {second.key}", f"runs: {second.run_key}"}
    request = ConversionRequest(model=second.reference, parameters=ConversionParameters(format="flac"), output="/out")
    request.save(any_store, ConversionFolder.of("abc").request)
    assert _found(any_store, keep=1) == set()
    any_store.delete(ConversionFolder.of("abc").request)
    based = _run(any_store, _spec(base=second.version, dataset=second.dataset), complete=False)
    assert _found(any_store, keep=1) == set()
    any_store.delete_folder(based.run_key)

    # Half of a removal, which a rerun completes.
    (model,) = (item for item in find_removable(any_store, keep=1) if item.kind == "models")
    assert model.keys[0] == second.folder.card
    any_store.delete(model.keys[0])
    assert list_models(any_store) == [oldest, third, latest]
    for item in find_removable(any_store, keep=1):
        remove(any_store, item)
    assert list_models(any_store) == [oldest, third, latest]
    assert not list(any_store.list(second.key))
    assert find(any_store, "drums") == latest
    assert _found(any_store, keep=1) == set()
    again = publish_tiny(any_store, "drums", 1)
    assert (find(any_store, "drums"), again.publication) == (again, 5)


def test_parts_of_a_long_recording_stay_until_the_conversion_has_ended(any_store: Store) -> None:
    folder = ConversionFolder.of("0123456789ab")
    parts = folder.parts_of("ba9876543210")
    any_store.write_bytes(f"{parts}/0.npy", b"12345")
    any_store.write_bytes(f"{folder.parts}/mine/0.npy", b"12345")
    assert _found(any_store) == set()
    any_store.write_json(folder.record, {})
    assert _found(any_store) == {f"parts: {parts}"}


FOREIGN = (
    *("models/.DS_Store", "models/drums/notes.txt", "models/drums/takes/1.wav", "models/drums/publications/._00000001.json"),
    *("runs/band/Thumbs.db", "runs/band/drums/._record.json", "runs/band/drums/notes.txt", "runs/band/drums/mixes/1.wav"),
    *("datasets/drums/shards/notes.txt", "datasets/drums/latest/._band.json", "datasets/drums/kept/notes.txt"),
    *("bases/mine.txt", "bases/mine/weights.pt", "dry_runs/.DS_Store", "dry_runs/notes.txt", "jobs/mine.json"),
)


def test_files_of_other_programs_are_left_alone(any_store: Store, publish_tiny: Publish) -> None:
    publish_tiny(any_store, "drums")
    _dataset(any_store, "kept", "shard-a")
    DatasetPointer(id="kept", recipes={}).save(any_store, DatasetFolder.latest("drums", "band"))
    for key in FOREIGN:
        any_store.write_bytes(key, b"[]")
    assert find_removable(any_store) == []
    assert verify(any_store).problems == {}


def test_a_folder_that_cannot_be_read_stops_it() -> None:
    """Whatever is in it may refer to the rest."""
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which lies below a folder that nobody may enter
        Path(folder).chmod(0o755)
        store = Store(f"{folder}/store")
        _dataset(store, "kept", "shard-a")
        spec = _run(store, _spec())
        Path(store.address(spec.run_key)).chmod(0)
        with as_somebody_else(), pytest.raises(StoreError, match="no permission") as refused:
            find_removable(store)
        Path(store.address(spec.run_key)).chmod(0o755)
        assert refused.value.where == store.address(spec.run_key)


def test_temporary_files_of_killed_writers_go_after_a_day(local_store: Store) -> None:
    local_store.write_bytes("runs/band/drums/abc/checkpoints/step-000000004.pt", b"state")
    folder = Path(local_store.uri, "runs/band/drums/abc/checkpoints")
    for number, age in enumerate((90_000, 60)):
        left = folder / f".partial-{number:012d}"
        left.write_bytes(b"half of a checkpoint")
        os.utime(left, (time.time() - age,) * 2)
    (item,) = [item for item in find_removable(local_store) if item.kind == "unfinished writes"]
    assert (item.place, item.bytes) == ("runs/band/drums/abc/checkpoints", 20)
    remove(local_store, item)
    assert sorted(os.listdir(folder)) == [".partial-000000000001", "step-000000004.pt"]


def test_uploads_of_killed_writers_go(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 keeps, and bills, the parts of an upload that nobody ends; two uploads may have one key."""
    s3_store.write_bytes("runs/whole", b"state")
    client, (bucket, _, prefix) = boto3.client("s3"), s3_store.uri.removeprefix("s3://").partition("/")
    for name in ("a/half", "a/half", "b/half"):
        upload = {"Bucket": bucket, "Key": f"{prefix}/runs/{name}"}
        upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
        client.upload_part(**upload, PartNumber=1, Body=bytes(5 << 20))
    assert find_removable(s3_store) == [], "a day has not passed"
    with monkeypatch.context() as patch:
        patch.setattr("rave_dist.storage.s3.time", SimpleNamespace(time=lambda: time.time() + 90_000))
        items = find_removable(s3_store)
        assert sorted((item.place, item.keys, item.bytes) for item in items) == [
            ("runs/a", ("runs/a/half",) * 2, 10 << 20),
            ("runs/b", ("runs/b/half",), 5 << 20),
        ]
        patch.delattr(Store, "unfinished")  # the removal lists nothing again
        for item in items:
            remove(s3_store, item)
            remove(s3_store, item)  # as another command would
    assert list(s3_store.unfinished(seconds=-60)) == []
    assert _keys(s3_store) == {"runs/whole"}


def test_what_cannot_be_read_stops_it_because_it_may_refer_to_anything(local_store: Store) -> None:
    spec = _run(local_store, _spec())
    local_store.write_bytes("runs/band/drums/record.json", b"{}")
    with pytest.raises(StoreError, match="not a valid RunRecord"):
        find_removable(local_store)
    assert local_store.exists(f"{spec.folder.checkpoints}/step-000000009.pt")


def test_the_latest_version_is_always_kept(local_store: Store) -> None:
    with pytest.raises(ConfigurationError, match="negative"):
        find_removable(local_store, keep=-1)


def test_the_command_lists_first_and_removes_with_yes(local_store: Store) -> None:
    spec = _run(local_store, _spec())
    RunRecord(library="band", instrument="drums", run_id=spec.run_id, dataset="kept").save(
        local_store, "runs/band/drums/record.json"
    )
    before = _keys(local_store)

    def call(*options: str, code: int = 0) -> str:
        answer = CliRunner().invoke(app, ["prune", "--store", local_store.uri, *options])
        assert answer.exit_code == code, answer.output
        return answer.stdout

    shown = call()
    assert f"checkpoints: {spec.folder.checkpoints}, 10 bytes" in shown
    assert "nothing was removed; --yes removes it" in shown
    document = json.loads(call("--json"))
    assert (document["removed"], document["bytes"]) == (False, 10)
    assert document["kinds"] == {"checkpoints": {"items": 1, "objects": 2, "bytes": 10}}
    assert _keys(local_store) == before
    with hold_library(local_store, "band", "train"):
        call("--yes", code=1)
        assert _keys(local_store) >= before
    document = json.loads(call("--yes", "--json"))
    assert (document["removed"], document["bytes"]) == (True, 10)
    removed = {f"{spec.folder.checkpoints}/step-000000009{ending}" for ending in (".pt", ".json")}
    assert {key for key in _keys(local_store) if not key.startswith("leases/")} == before - removed
    assert "nothing to remove" in call()
