"""An instrument's base is found by its name, and one that is not there or does not fit is refused by check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from rave_dist.checks import InstrumentCheck, LibraryCheck, check_library
from rave_dist.cli import app
from rave_dist.dataset.read import load_manifest, read_segments
from rave_dist.dataset.shards import ShardWriter
from rave_dist.errors import ConfigurationError, LibraryError, ModelNotFoundError
from rave_dist.initial_weights import find_initial_weights, joint_base_problem, plan_joint_base, write_joint_dataset
from rave_dist.leases import hold_library
from rave_dist.library.manifest import Library, load_library
from rave_dist.options import Budget
from rave_dist.records import DatasetFolder, DatasetPointer, ModelCard
from tests.sample_records import dataset_manifest, run_record, source_record

pytestmark = pytest.mark.slow

Write = Callable[[str], Library]


@pytest.fixture
def write(tmp_path: Path, tiny_model: Any) -> Write:
    """A library with one instrument called harp, given its settings, in a store that has a model called drums."""

    def write(settings: str) -> Library:
        manifest = tmp_path / "library.yaml"
        small = "{CAPACITY: 4, LATENT_SIZE: 8, blocks.NoiseGeneratorV2.noise_bands: 5}"
        manifest.write_text(
            "name: band\nstore: ./store\n"
            f"defaults: {{config: v2_small, override: {small}, budget: {{steps: 300}}, window: 40960}}\n"
            f"instruments:\n  harp: {{sources: [harp.wav], {settings}}}\n"
        )
        return load_library(manifest)

    store = write("seed: 1").store
    card = tiny_model.publish(store, "drums")
    for file in ("config.gin", "weights.pt"):
        store.upload(tiny_model.run / file, f"{card.run_key}/{file}")
    soundfile.write(tmp_path / "harp.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 20 * 44100), 44100)
    return write


@pytest.fixture
def band(tmp_path: Path) -> Callable[[str], Library]:
    """A library that trains its own base, with an ingested drum and harp, a lute that is not, and more lines of settings."""

    def band(lines: str = "") -> Library:
        (tmp_path / "library.yaml").write_text(
            "name: band\nstore: ./store\n"
            "defaults: {config: v2_tiny, budget: {steps: 300}, base: {train: true, budget: {steps: 50}}}\n"
            "instruments:\n  drum: {sources: [drum.wav], credit: {performer: Ada, licence: CC0}}\n"
            "  harp: {sources: [harp.wav], credit: {performer: Bo, licence: CC0}}\n"
            f"  lute: {{sources: [lute.wav]}}\n{lines}"
        )
        library = load_library(tmp_path / "library.yaml")
        for number, name in enumerate(("drum", "harp")):
            _ingest(library, name, seconds=3 + number)
        return library

    return band


def _ingest(library: Library, name: str, *, seconds: int) -> None:
    """A dataset of one recording, as ingest leaves it."""
    pcm = np.full((1, seconds * 44100), seconds, dtype=np.int16)
    with ShardWriter(library.store, name, 44100) as writer:
        writer.write(name, 0, pcm)
    source = source_record(
        **{"source": f"{name}.wav", "source_id": name, "pcm_sha256": name, "seconds": seconds, "used_seconds": seconds},
        **{"samples": pcm.shape[1], "spans": ((0, pcm.shape[1]),)},
    )
    shards = tuple(writer.shards)
    manifest = dataset_manifest(id=f"{seconds}" * 12, instrument=name, sources=(source,), shards=shards, used_seconds=seconds)
    manifest.save(library.store, manifest.folder.manifest)
    DatasetPointer(id=manifest.id).save(library.store, DatasetFolder.latest(name, library.name))


def test_a_librarys_base_hears_all_its_instruments(band: Callable[[str], Library]) -> None:
    library = band("")
    before = [entry.key for entry in library.store.list()]
    joint = plan_joint_base(library)
    assert joint is not None
    assert [entry.key for entry in library.store.list()] == before, "a plan writes nothing"
    write_joint_dataset(library.store, joint)
    spec = joint.spec
    assert (spec.instrument, spec.budget, spec.config) == ("band-base", Budget(steps=50), ("v2_tiny",))
    assert spec.credit == {"performer": "Ada; Bo", "licence": "CC0"}
    manifest = load_manifest(library.store, spec.instrument, spec.dataset)
    assert manifest.used_seconds == 7
    heard = {segment.source_id: segment.pcm.shape[1] / 44100 for segment in read_segments(library.store, manifest)}
    assert heard == {"drum": 3, "harp": 4}
    again = plan_joint_base(library)
    assert again is not None
    assert again.spec == spec  # what was trained once is not trained again
    assert find_initial_weights(library, "harp") is None  # it is not there yet


def test_an_instrument_starts_from_the_librarys_base(band: Callable[[str], Library], tiny_model: Any) -> None:
    library = band("")
    card = tiny_model.publish(library.store, "band-base")
    for file in ("config.gin", "weights.pt"):
        library.store.upload(tiny_model.run / file, f"{card.run_key}/{file}")
    start = find_initial_weights(library, "harp", joint=card.reference)
    assert start is not None
    assert start.id == card.version


def test_what_differs_from_the_librarys_base_is_named(band: Callable[[str], Library]) -> None:
    library = band(
        "  oud: {sources: [oud.wav], override: {CAPACITY: 9}}\n  ney: {sources: [ney.wav], base: drum, channels: 2}\n"
    )
    assert joint_base_problem(library, "harp") is None
    assert joint_base_problem(library, "ney") is None  # it has a base of its own
    problem = joint_base_problem(library, "oud")
    assert problem is not None
    assert "override" in problem.what
    for wrong in ("  oud: {sources: [oud.wav], base: {train: true}}\n", "  band-base: {sources: [x.wav]}\n"):
        with pytest.raises(LibraryError, match="base"):
            band(wrong)


def _check(library: Library) -> InstrumentCheck:
    (found,) = check_library(library).instruments
    return found


def test_a_published_model_gives_its_weights(write: Write, tiny_model: Any) -> None:
    start = find_initial_weights(write("base: drums"), "harp")
    assert start is not None
    weights = torch.load(tiny_model.run / "weights.pt", weights_only=True)
    assert all(torch.equal(start.weights[name], value) for name, value in weights.items())
    assert (start.step, start.optimizers) == (0, None)
    again = find_initial_weights(write(f"base: {start.origin}"), "harp")
    assert again is not None
    assert again.id == start.id
    assert find_initial_weights(write("seed: 1"), "harp") is None


def test_check_lets_pass_what_fits_and_names_what_does_not(write: Write) -> None:
    assert not _check(write("base: drums")).warnings
    other_rate = _check(write("base: drums, sample_rate: 48000"))
    assert other_rate.ok
    assert any("trained at 44100 Hz" in warning.what for warning in other_rate.warnings)
    for settings, what, fix in (
        ("base: drumms", "'drumms'", "drums"),
        ("base: drums, override: {CAPACITY: 6}", "another shape", "override"),
        ("base: {stock: nowhere}", "no stock RAVE run", "config.gin"),
    ):
        (problem,) = _check(write(settings)).problems
        assert what in problem.what
        assert fix in problem.fix


def test_a_base_whose_run_has_gone_on_or_away_is_not_taken_for_it(write: Write, publish_tiny: Callable[..., ModelCard]) -> None:
    library = write("base: drums")
    card = publish_tiny(library.store, "drums")
    library.store.write_bytes(card.run_folder.config, b"another")
    with pytest.raises(ModelNotFoundError, match="trained further"):
        find_initial_weights(library, "harp")
    library.store.delete(card.run_folder.weights)
    with pytest.raises(ModelNotFoundError, match="not in this store"):
        find_initial_weights(library, "harp")


def test_an_instrument_does_not_start_from_what_it_replaces(write: Write, publish_tiny: Callable[..., ModelCard]) -> None:
    library = write("base: harp")
    card = publish_tiny(library.store, "harp")
    with pytest.raises(LibraryError) as caught:
        find_initial_weights(library, "harp")
    assert caught.value.fix == f"base: {card.reference}"


def test_a_stock_run_is_looked_for_beside_the_manifest(write: Write, tmp_path: Path) -> None:
    library = write("base: {stock: runs/drums, resume: true}")
    base = library.base("harp")
    assert base is not None
    assert base.stock == str(tmp_path / "runs" / "drums")
    with pytest.raises(ConfigurationError):
        find_initial_weights(library, "harp")


def test_unknown_words_of_a_base_are_named(write: Write) -> None:
    for wrong, fix in (("{stock: x, resum: true}", "'resume'"), ("{resume: true}", "base"), ("[drums]", "base")):
        with pytest.raises(LibraryError) as caught:
            write(f"base: {wrong}")
        assert fix in caught.value.fix


def test_check_lists_the_librarys_base_before_its_instruments(tmp_path: Path) -> None:
    rate = 44100
    for number, name in enumerate(("drum", "harp", "oboe")):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(number).uniform(-0.3, 0.3, 10 * rate), rate)
    tiny = "{CAPACITY: 4, LATENT_SIZE: 8, blocks.NoiseGeneratorV2.noise_bands: 5}"

    def check(base: str) -> LibraryCheck:
        (tmp_path / "library.yaml").write_text(
            f"name: band\nstore: ./store\ndefaults: {{config: v2_small, override: {tiny}, window: 40960, "
            f"budget: {{steps: 30}}, base: {base}}}\n"
            "instruments:\n  drum: {sources: drum.wav}\n  harp: {sources: harp.wav}\n"
            f"  oboe: {{sources: oboe.wav, channels: 2, base: {{model: nobody}}}}\n"
        )
        return check_library(load_library(tmp_path / "library.yaml"), ["drum", "harp"])

    found = check("{train: true, budget: {steps: 90}}")
    document = found.to_json()
    assert [entry["name"] for entry in document["instruments"]] == ["drum", "harp"]
    base, drum = document["base"], document["instruments"][0]
    assert (base["name"], base["ok"], base["sources"], base["seconds"], base["steps"]) == ("band-base", True, 2, 20.0, 90)
    assert base["train_seconds"] + base["validation_seconds"] <= 20
    assert base["hours"] == pytest.approx(3 * drum["hours"], rel=0.05)
    # What its instruments have is in the store once.
    assert drum["disk_bytes"] - base["disk_bytes"] == 2 * 10 * rate

    assert check("{model: nobody}").base is None


def test_no_instrument_starts_from_a_base_that_cannot_be_trained(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "drum.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 20 * 44100), 44100)
    (tmp_path / "library.yaml").write_text(
        "name: band\nstore: ./store\ndefaults: {config: v1, window: 2048, base: {train: true}, budget: {steps: 30}}\n"
        "instruments:\n  drum: {sources: drum.wav}\n  harp: {sources: drum.wav, channels: 2}\n"
    )
    found = check_library(load_library(tmp_path / "library.yaml"))
    assert found.base is not None
    assert "too short" in found.base.problems[0].what
    drum, harp = found.instruments
    assert "the joint base cannot be trained" in drum.problems[0].what
    assert "differs from the joint base in channels" in harp.problems[0].what


def test_status_lists_the_librarys_base(band: Callable[[str], Library], tmp_path: Path) -> None:
    library = band("")

    def status() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["status", str(tmp_path / "library.yaml"), "--json"])
        assert done.exit_code == 0
        return dict(json.loads(done.stdout))

    assert status()["base"]["state"] == "waiting"
    record = run_record(instrument="band-base", state="running", step=7, phase=1)
    library.store.write_json(record.key, record.to_json())
    with hold_library(library.store, library.name, "train"):  # without a command at work, nothing runs
        told = status()
    assert [entry["name"] for entry in told["instruments"]] == ["drum", "harp", "lute"]
    assert {key: told["base"][key] for key in ("name", "state", "step", "phase")} == {
        **{"name": "band-base", "state": "running", "step": 7, "phase": 1}
    }
    text = CliRunner().invoke(app, ["status", str(tmp_path / "library.yaml")]).stdout
    assert text.index("band-base") < text.index("drum")
    manifest = (tmp_path / "library.yaml").read_text()
    (tmp_path / "library.yaml").write_text(manifest.replace(", base: {train: true, budget: {steps: 50}}", ""))
    assert status()["base"] is None
