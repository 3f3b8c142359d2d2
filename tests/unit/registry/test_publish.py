"""From a finished run to a published model, on a folder and on S3, with real processes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rave_dist.dataset.shards import ShardWriter
from rave_dist.errors import ConfigurationError, DamagedObjectError, DatasetError, TrainingError, VerificationError
from rave_dist.identity import hash_file
from rave_dist.rave.exportable_noise import place
from rave_dist.records import BestWeights, ExportRecord, ModelCard, RunFolder, RunResult, TrainingSpec
from rave_dist.registry import publish as publish_module
from rave_dist.registry.export import export_run
from rave_dist.registry.publish import publish
from rave_dist.registry.store import fetch, find, list_models, model_version
from rave_dist.storage.store import Store
from tests.sample_records import dataset_manifest, source_record

pytestmark = pytest.mark.slow


def put_run(store: Store, tiny: Any, *, name: str = "drums", files: tuple[str, ...] = ()) -> TrainingSpec:
    """A finished run and its dataset, as training leaves them."""
    spec: TrainingSpec = tiny.spec.model_copy(update={"instrument": name})
    for file in files or ("config.gin", "weights.pt", "result.json"):
        store.upload(tiny.run / file, f"{spec.run_key}/{file}")
    generator = np.random.default_rng(0)
    pcm = (generator.normal(size=(1, 6 * 44100)) * 3000).astype(np.int16)
    with ShardWriter(store, name, 44100) as writer:
        writer.write("take", 0, pcm)
    source = source_record(source_id="take", seconds=6.5, samples=pcm.shape[1], spans=((0, pcm.shape[1]),))
    shards = tuple(writer.shards)
    manifest = dataset_manifest(id=spec.dataset, instrument=name, sources=(source,), shards=shards, used_seconds=6.0)
    manifest.save(store, manifest.folder.manifest)
    return spec


def keys(store: Store) -> list[str]:
    return [entry.key for entry in store.list("models")]


@pytest.fixture
def export_at_hand(tiny_models: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing takes the export that was already built of the same weights, for tests of what becomes of it."""

    def take(run: Path, out: Path, *, name: str, **options: Any) -> ExportRecord:
        (tiny,) = [one for one in tiny_models if hash_file(one.run / "weights.pt") == hash_file(run / "weights.pt")]
        shutil.copytree(tiny.out, out, dirs_exist_ok=True)
        record = ExportRecord.model_validate_json((out / "export.json").read_bytes())
        names = {"offline": f"{name}.ts", "streaming": f"{name}_streaming.ts"}
        for kind, file in names.items():
            (out / getattr(record, kind)).rename(out / file)
        return record.model_copy(update=names)

    monkeypatch.setattr(publish_module, "export_run", take)


def test_a_finished_run_becomes_a_model(any_store: Store, tiny_model: Any, tmp_path: Path) -> None:
    spec = put_run(any_store, tiny_model)
    activities: list[str] = []
    card = publish(any_store, spec, activities.append)

    assert activities == ["exporting", "measuring"]
    assert (card.name, card.library, card.run_id, card.dataset) == ("drums", "tiny", spec.run_id, spec.dataset)
    assert card.version == model_version(RunFolder(tiny_model.run))
    assert (card.sample_rate, card.channels, card.latents, card.latent_size, card.hop) == (44100, 1, 4, 8, 512)
    assert (card.phase, card.step, card.steps, card.complete) == (2, 10, 10, True)
    assert card.seconds == 6.0
    assert card.validation.first == 20.0
    assert set(card.metrics) == {"model", "mp3", "noise", "silence"}
    assert card.metrics["noise"].spectral_db < card.metrics["silence"].spectral_db  # its material is noise
    assert 0.5 < card.metrics["model"].seconds < 6.0  # all that was held out, and no more
    assert card.credit == {"performer": "nobody"}
    assert (card.engine.name, card.engine.version, card.engine.licence) == ("acids-rave", "2.3.1", "CC BY-NC 4.0")
    left, right = card.receptive_field
    assert 10000 < left < 12288
    assert 10000 < right < 12288
    assert card.delay == 10528
    assert set(keys(any_store)) == {
        card.folder.card,
        f"{card.key}/drums.ts",
        f"{card.key}/drums_streaming.ts",
        "models/drums/publications/00000001.json",
    }
    assert find(any_store, "drums") == card

    tags = {entry.key: entry.tag for entry in any_store.list("models")}
    assert publish(any_store, spec) == card
    assert {entry.key: entry.tag for entry in any_store.list("models")} == tags

    path = fetch(any_store, card, "offline", folder=tmp_path)
    assert hash_file(path) == card.files["offline"].sha256
    x = 0.1 * torch.randn(1, 1, 512 * 8)
    assert torch.jit.load(str(path)).convert(x, *place(0, 0), 1.0).shape == x.shape


def test_the_best_of_phase_1_is_measured_as_if_it_were_published(local_store: Store, tiny_models: tuple[Any, ...]) -> None:
    ended, before = tiny_models[:2]
    alone = publish(local_store, put_run(local_store, before, name="before"))
    spec = put_run(local_store, ended)
    local_store.upload(before.run / "weights.pt", spec.folder.weights_phase_1)
    result = RunResult.load(local_store, spec.folder.result)
    best = BestWeights(step=4, distance=18.0)
    result.model_copy(update={"phase_1": best}).save(local_store, spec.folder.result)

    card = publish(local_store, spec)
    assert card.version == model_version(RunFolder(ended.run))  # it is the same model
    assert set(card.metrics) == {"model", "phase_1", "mp3", "noise", "silence"}
    assert card.metrics["phase_1"] == alone.metrics["model"]
    assert card.metrics["phase_1"] != card.metrics["model"]
    files = ("card.json", "drums.ts", "drums_streaming.ts")
    assert {entry.key for entry in local_store.list(card.key)} == {f"{card.key}/{file}" for file in files}


def test_what_a_dead_publisher_left_is_completed(
    local_store: Store, tiny_model: Any, publish_tiny: Callable[..., ModelCard]
) -> None:
    spec = put_run(local_store, tiny_model)
    died = publish_tiny(local_store, "drums")
    local_store.delete(died.folder.card)
    local_store.delete(f"{died.key}/drums_streaming.ts")
    assert list_models(local_store) == []
    card = publish(local_store, spec)
    assert card.version == died.version
    assert card.files["offline"] == died.files["offline"]  # it was good: it stays
    for file in card.files.values():
        assert hash_file(Path(local_store.uri) / file.key) == file.sha256
    assert find(local_store, "drums") == card


@pytest.mark.usefixtures("export_at_hand")
def test_a_bad_file_without_a_card_is_replaced(local_store: Store, tiny_model: Any) -> None:
    spec = put_run(local_store, tiny_model)
    key = f"models/drums/{model_version(RunFolder(tiny_model.run))}/drums.ts"
    local_store.write_bytes(key, b"not a model")
    card = publish(local_store, spec)
    assert hash_file(Path(local_store.uri) / key) == card.files["offline"].sha256


@pytest.mark.usefixtures("export_at_hand")
@pytest.mark.parametrize("clock", ["2020-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"])
def test_latest_moves_to_the_last_published_whatever_the_clocks_say_and_does_not_move_back(
    clock: str, local_store: Store, tiny_models: tuple[Any, ...], publish_tiny: Callable[..., ModelCard]
) -> None:
    old = publish_tiny(local_store, "drums", 0)
    old = old.model_copy(update={"created_at": clock})
    old.save(local_store, old.folder.card)
    new = publish_tiny(local_store, "drums", 1)
    assert find(local_store, "drums") == new
    assert publish(local_store, put_run(local_store, tiny_models[0])) == old
    assert find(local_store, "drums") == new
    assert list_models(local_store) == [old, new]

    # A publisher that died after it took its number, and before its card, changes nothing until it is repeated.
    local_store.delete(new.folder.card)
    assert find(local_store, "drums") == old
    again = publish(local_store, put_run(local_store, tiny_models[1]))
    assert find(local_store, "drums") == again
    assert (again.version, again.files) == (new.version, new.files)


@pytest.mark.usefixtures("export_at_hand")
def test_a_wrong_credit_is_corrected_and_its_history_kept(any_store: Store, tiny_model: Any) -> None:
    spec = put_run(any_store, tiny_model)
    first = publish(any_store, spec)
    model_files = {entry.key: entry.tag for entry in any_store.list("models") if not entry.key.endswith("card.json")}
    right = spec.model_copy(update={"credit": {"performer": "Ada", "licence": "CC0-1.0"}})
    assert right.run_id == spec.run_id
    card = publish(any_store, right)
    assert card == find(any_store, "drums")
    assert (card.version, card.files, card.created_at) == (first.version, first.files, first.created_at)
    assert card.credit == {"performer": "Ada", "licence": "CC0-1.0"}
    assert [past.credit for past in card.past_credits] == [{"performer": "nobody"}]
    assert publish(any_store, right) == card
    third = publish(any_store, spec)
    assert [past.credit for past in third.past_credits] == [first.credit, card.credit]
    assert {e.key: e.tag for e in any_store.list("models") if not e.key.endswith("card.json")} == model_files


def test_nothing_is_published_of_an_unfinished_run(local_store: Store, tiny_model: Any) -> None:
    spec = put_run(local_store, tiny_model, files=("config.gin", "weights.pt"))
    with pytest.raises(TrainingError, match="not finished"):
        publish(local_store, spec)
    assert keys(local_store) == []


def test_nothing_is_published_without_its_dataset(local_store: Store, tiny_model: Any) -> None:
    spec = put_run(local_store, tiny_model)
    local_store.delete(f"datasets/drums/{spec.dataset}/manifest.json")
    with pytest.raises(DatasetError):
        publish(local_store, spec)
    assert keys(local_store) == []


def test_nothing_is_published_of_a_model_that_went_silent(local_store: Store, tiny_model: Any, tmp_path: Path) -> None:
    spec = put_run(local_store, tiny_model)
    weights = torch.load(tiny_model.run / "weights.pt", weights_only=True)
    weights["decoder.waveform_module.weight_g"] *= 1e-12
    weights["decoder.noise_module.net.4.weight"] *= 0
    torch.save(weights, tmp_path / "weights.pt")
    local_store.upload(tmp_path / "weights.pt", spec.folder.weights)
    result = json.loads((tiny_model.run / "result.json").read_text())
    result["validation"]["best"] = 10.0  # it says that it has learnt
    local_store.write_json(spec.folder.result, result)
    with pytest.raises(VerificationError, match="silent"):
        publish(local_store, spec)
    assert keys(local_store) == []


def test_weights_that_do_not_fit_say_so(tiny_model: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("spec.json", "config.gin"):
        (run / file).write_bytes((tiny_model.run / file).read_bytes())
    torch.save({"encoder.weight": torch.zeros(3)}, run / "weights.pt")
    with pytest.raises(VerificationError, match="the export failed: RuntimeError: Error"):
        export_run(run, tmp_path / "out", name="drums")


def test_an_error_crosses_the_process_border_as_it_was(tiny_model: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("spec.json", "weights.pt"):
        (run / file).write_bytes((tiny_model.run / file).read_bytes())
    (run / "config.gin").write_text("NO_SUCH = @thing\n")
    with pytest.raises(ConfigurationError):
        export_run(run, tmp_path / "out", name="drums")


def test_the_version_is_of_the_weights_and_the_configuration(tiny_models: tuple[Any, ...], tmp_path: Path) -> None:
    versions = {model_version(RunFolder(tiny.run)) for tiny in tiny_models}
    assert len(versions) == len(tiny_models)
    weights = torch.load(tiny_models[0].run / "weights.pt", weights_only=True)
    text = (tiny_models[0].run / "config.gin").read_text()
    torch.save(dict(reversed(weights.items())), tmp_path / "weights.pt")  # other bytes, the same weights
    (tmp_path / "config.gin").write_text(text)
    assert model_version(RunFolder(tmp_path)) == model_version(RunFolder(tiny_models[0].run))
    (tmp_path / "config.gin").write_text(text + "\n# another\n")
    assert model_version(RunFolder(tmp_path)) not in versions


def test_damaged_weights_are_named_with_their_address(tiny_model: Any, tmp_path: Path) -> None:
    data = (tiny_model.run / "weights.pt").read_bytes()
    (tmp_path / "config.gin").write_text("")
    for damaged in (b"", data[: len(data) // 2], b"no archive"):
        (tmp_path / "weights.pt").write_bytes(damaged)
        with pytest.raises(DamagedObjectError, match="damaged") as refused:
            model_version(RunFolder(tmp_path), where="s3://bucket/weights.pt")
        assert refused.value.where == "s3://bucket/weights.pt"
        assert "result.json" in refused.value.fix
