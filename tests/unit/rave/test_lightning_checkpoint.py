"""Runs go to stock RAVE and come from it: with the real ``rave`` commands, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from rave_dist.cli import app
from rave_dist.errors import ConfigurationError, StoreError, TrainingError
from rave_dist.options import BaseSpec, Budget
from rave_dist.rave.lightning_checkpoint import write_stock_run
from rave_dist.records import RunFolder, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.schedule import StepTimes, first_schedule
from rave_dist.training.state.checkpoint import last_checkpoint, load_checkpoint
from rave_dist.training.state.initialization import (
    InitialWeights,
    load_initial_weights,
    store_initial_weights,
    weights_of_model,
    weights_of_stock_run,
)
from rave_dist.training.state.outputs import read_result
from rave_dist.training.state.run_state import RunState
from rave_dist.training.trainer import train
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

RATE, WINDOW = 44100, 40960
SMALL = {"CAPACITY": 4, "LATENT_SIZE": 8}
STOCK_STEPS, STOCK_PHASE_1 = 4, 3


def rave(*arguments: str | Path) -> None:
    """A command of stock RAVE."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("stock_command.py")), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]


@dataclass(frozen=True)
class Recording:
    pcm: npt.NDArray[np.int16]


def _plucks(seconds: float, seed: int) -> npt.NDArray[np.float64]:
    random, time = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    tone = np.exp(-6 * (time * 4 % 1)) * np.sin(2 * np.pi * 220 * time)
    return 0.4 * tone + 0.01 * random.standard_normal(len(time))


def _recording(seconds: float, seed: int) -> Recording:
    return Recording((_plucks(seconds, seed) * 32767).astype(np.int16)[None])


TRAIN, HELD_OUT = [_recording(6, 1)], [_recording(1, 2)]
_spec = partial(training_spec, override=SMALL, sample_rate=RATE, window=WINDOW, budget=Budget(steps=6))


def _train(store: Store, spec: TrainingSpec) -> list[RunState]:
    """Trains a run; returns what it told of itself."""
    torch.set_num_threads(1)
    told: list[RunState] = []
    train(store, spec, TRAIN, HELD_OUT, on_progress=lambda state, speed: told.append(RunState(**vars(state))))
    return told


@dataclass(frozen=True)
class Ours:
    """A finished run of ours: where it is stored, and its two files."""

    store: Store
    spec: TrainingSpec
    folder: Path
    best: float

    @property
    def saved(self) -> dict[str, Any]:
        """Its last checkpoint."""
        loaded = load_checkpoint(self.store, f"{self.spec.run_key}/checkpoints")
        assert loaded is not None
        return loaded[1]

    def unpack(self, folder: Path) -> Path:
        """Writes it for stock RAVE; returns the folder of its checkpoints."""
        saved = last_checkpoint(self.store, f"{self.spec.run_key}/checkpoints")
        return write_stock_run(RunFolder(self.folder), folder, step=6, saved=saved).parent


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = tmp_path_factory.mktemp("ours")
    store, spec = Store(str(folder / "store")), _spec()
    told = _train(store, spec)
    for file in ("config.gin", "weights.pt"):
        store.download(f"{spec.run_key}/{file}", folder / "run" / file)
    assert told[-1].best is not None
    return Ours(store, spec, folder / "run", told[-1].best.distance)


@pytest.fixture(scope="module")
def stock_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings as ``rave preprocess`` leaves them."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("rave preprocess needs ffmpeg and ffprobe")
    folder = tmp_path_factory.mktemp("stock")
    (folder / "recordings").mkdir()
    soundfile.write(folder / "recordings" / "plucks.wav", _plucks(12, 1), RATE)
    place = ("--input_path", folder / "recordings", "--output_path", folder / "data")
    rave("preprocess", *place, "--num_signal", str(WINDOW), "--channels", "1")
    return folder / "data"


def _rave_train(data: Path, out: Path, *arguments: str | Path, steps: int) -> Path:
    """``rave train`` for so many steps; returns the run's folder."""
    often = ("--max_steps", str(steps), "--val_every", "2", "--save_every", str(steps))
    small = ("--channels", "1", "--gpu", "-1", "--batch", "2", "--n_signal", str(WINDOW), "--workers", "0", "--noprogress")
    rave("train", "--name", "plucks", "--db_path", data, "--out_path", out, *often, *small, *arguments)
    (run,) = out.iterdir()
    return run


@pytest.fixture(scope="module")
def stock_run(stock_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of ``rave train``, the last in phase 2, with averaged weights."""
    overrides = [f"{key}={value}" for key, value in (SMALL | {"PHASE_1_DURATION": STOCK_PHASE_1}).items()]
    arguments = [part for override in overrides for part in ("--override", override)]
    out = tmp_path_factory.mktemp("runs")
    return _rave_train(stock_data, out, "--config", "v2_small", "--ema", "0.5", *arguments, steps=STOCK_STEPS)


def _newest(run: Path) -> dict[str, Any]:
    path = max(run.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


# ---------------------------------------------------------------- out


def test_rave_export_opens_what_unpack_writes(
    local_store: Store, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tiny_model.publish(local_store, "drums")
    for file in ("config.gin", "weights.pt"):
        local_store.upload(tiny_model.run / file, f"{card.run_key}/{file}")
    command = ["unpack", "--store", local_store.uri, "--model", "drums", str(tmp_path / "stock" / "drums"), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert Path(told["checkpoint"]).is_file()

    rave("export", "--run", told["run"], "--output", tmp_path / "exported")
    exported = torch.jit.load(str(tmp_path / "exported" / "drums.ts")).state_dict()
    weights = torch.load(tiny_model.run / "weights.pt", weights_only=True)
    shared = [name for name in weights if name in exported and not name.startswith("pqmf")]
    assert {"latent_pca", "latent_mean", "fidelity"} < set(shared)
    assert any(name.startswith("decoder") for name in shared)
    assert all(torch.equal(exported[name], weights[name]) for name in shared)

    assert CliRunner().invoke(app, command).exit_code == 1  # it would write over what is there
    local_store.write_bytes(card.run_folder.config, b"another run")
    assert "trained further" in CliRunner().invoke(app, [*command[:-2], str(tmp_path / "again")]).output


def test_rave_train_goes_on_with_a_run_of_ours(ours: Ours, stock_data: Path, tmp_path: Path) -> None:
    last = ours.unpack(tmp_path / "plucks") / "last.ckpt"
    run = _rave_train(stock_data, tmp_path / "runs", "--ckpt", last, steps=8)
    before, after = torch.load(last, weights_only=True), _newest(run)
    assert after["global_step"] >= 7
    # Phase 2 had begun, so the encoder stays as it was and its optimizer has no further step.
    encoder = [name for name in before["state_dict"] if name.startswith("encoder") and name.endswith(("weight_g", "weight_v"))]
    assert encoder
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in encoder)
    steps = [checkpoint["optimizer_states"][0]["state"][0]["step"] for checkpoint in (before, after)]
    assert steps == [4, 4]
    assert before["optimizer_states"][1]["state"][0]["step"] < after["optimizer_states"][1]["state"][0]["step"]


def test_a_run_without_its_checkpoints_is_written_for_playing_only(ours: Ours, tmp_path: Path) -> None:
    write_stock_run(RunFolder(ours.folder), tmp_path / "plucks", step=6, saved=None)
    (only,) = (tmp_path / "plucks").rglob("*.ckpt")
    assert only.name == "best.ckpt"
    with pytest.raises(ConfigurationError, match="no optimizers"):
        weights_of_stock_run(tmp_path / "plucks", resume=True, ema=False)
    with pytest.raises(StoreError, match="is not empty"):
        write_stock_run(RunFolder(ours.folder), tmp_path / "plucks", step=6, saved=None)


def test_there_and_back_again_nothing_is_lost(ours: Ours, tmp_path: Path) -> None:
    checkpoints, saved = ours.unpack(tmp_path / "plucks"), ours.saved
    start = weights_of_stock_run(checkpoints / "last.ckpt", resume=True, ema=False)
    assert start.optimizers is not None
    assert start.step == 6
    for ours_state, theirs in zip(("generator_optimizer", "discriminator_optimizer"), start.optimizers, strict=True):
        for index, moments in saved["training"][ours_state]["state"].items():
            assert all(torch.equal(value, theirs["state"][index][name]) for name, value in moments.items())
    assert all(torch.equal(value, start.weights[name]) for name, value in saved["model"].items())
    schedule = first_schedule(Budget(steps=20), step_times=None, override={}, resume_point=start.resume_point)
    assert (schedule.steps, schedule.phase_1_steps) == (20, saved["state"]["schedule"]["phase_1_steps"])
    # What is published is what a person gets who names the folder alone.
    published = torch.load(ours.folder / "weights.pt", weights_only=True)
    plain = weights_of_stock_run(tmp_path / "plucks", resume=False, ema=False)
    assert all(torch.equal(value, plain.weights[name]) for name, value in published.items())


# ---------------------------------------------------------------- in


def test_we_go_on_where_rave_train_stopped(stock_run: Path, local_store: Store) -> None:
    theirs = _newest(stock_run)
    start = weights_of_stock_run(stock_run, resume=True, ema=False)
    assert start.step == theirs["global_step"] == STOCK_STEPS
    spec = _spec(base=store_initial_weights(local_store, start), budget=Budget(steps=7))
    told = _train(local_store, spec)

    assert (told[0].step, told[0].phase, told[0].schedule.phase_1_steps) == (STOCK_STEPS, 2, STOCK_PHASE_1)
    assert told[-1].step == 7
    result = read_result(local_store, spec)
    assert result is not None
    assert result.phase_1 is None  # that phase was theirs
    assert not local_store.exists(spec.folder.weights_phase_1)
    loaded = load_checkpoint(local_store, spec.folder.checkpoints)
    assert loaded is not None
    ours, saved = loaded[1]["training"], loaded[1]
    # The encoder learnt in stock's three steps of phase 1 and in none since; the discriminator goes on from stock's one.
    assert ours["generator_optimizer"]["state"][0]["step"] == STOCK_PHASE_1
    assert ours["generator_optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-4)
    first_moment = ours["generator_optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(first_moment, theirs["optimizer_states"][0]["state"][0]["exp_avg"])
    frozen = "encoder.encoder.net.0.weight_v"
    assert torch.equal(saved["model"][frozen], theirs["state_dict"][frozen])
    moving = next(name for name in theirs["state_dict"] if name.startswith("decoder") and name.endswith("weight_v"))
    assert not torch.equal(saved["model"][moving], theirs["state_dict"][moving])


def test_a_stock_run_in_phase_1_keeps_its_learning_rate_in_our_schedule(stock_run: Path) -> None:
    path = stock_run / "version_0" / "checkpoints"
    early = min(path.glob("*.ckpt"), key=lambda path: torch.load(path, weights_only=True)["global_step"])
    start = weights_of_stock_run(early, resume=True, ema=False)
    assert start.step == 2
    schedule = first_schedule(Budget(steps=30), step_times=None, override={}, resume_point=start.resume_point)
    assert (schedule.steps, schedule.phase_1_steps) == (30, 20)
    hours = first_schedule(Budget(hours=1), step_times=StepTimes(1.0, 1.0), override={}, resume_point=start.resume_point)
    assert hours.steps == pytest.approx(2 + 3600, abs=2)
    with pytest.raises(ConfigurationError, match="used up") as caught:
        first_schedule(Budget(steps=2), step_times=None, override={}, resume_point=start.resume_point)
    assert "steps: 4" in caught.value.fix


def test_averaged_weights_are_taken_when_asked_for(stock_run: Path, ours: Ours, tmp_path: Path) -> None:
    plain, averaged = (weights_of_stock_run(stock_run, resume=False, ema=ema) for ema in (False, True))
    assert plain.id != averaged.id
    assert plain.weights.keys() == averaged.weights.keys()
    kept = _newest(stock_run)["callbacks"]["EMA"]
    assert all(torch.equal(averaged.weights[name], value) for name, value in kept.items())
    assert any(not torch.equal(plain.weights[name], value) for name, value in kept.items())
    ours.unpack(tmp_path / "plucks")
    with pytest.raises(ConfigurationError, match="no averaged"):
        weights_of_stock_run(tmp_path / "plucks", resume=False, ema=True)


def test_a_run_with_a_base_begins_where_the_base_ended(ours: Ours, local_store: Store) -> None:
    start = weights_of_model(RunFolder(ours.folder), version="a" * 12, origin="plucks@a")
    told = _train(local_store, _spec(instrument="harp", base=store_initial_weights(local_store, start), budget=Budget(steps=2)))
    assert told[0].step == 0
    assert told[0].first == pytest.approx(ours.best, rel=1e-5)
    assert _train(local_store, _spec(instrument="lute", budget=Budget(steps=2)))[0].first != pytest.approx(ours.best, rel=0.01)


def test_a_base_of_another_architecture_is_refused_with_a_diff(ours: Ours, local_store: Store) -> None:
    start = weights_of_model(RunFolder(ours.folder), version="a" * 12, origin="plucks@a")
    spec = _spec(override={**SMALL, "CAPACITY": 5}, base=store_initial_weights(local_store, start))
    with pytest.raises(ConfigurationError, match="another shape") as caught:
        _train(local_store, spec)
    assert caught.value.where == "plucks@a"


def test_a_base_in_the_store_is_whole(any_store: Store) -> None:
    start = InitialWeights("b" * 12, "somewhere", "CAPACITY = 4\n", {"w": torch.ones(2)}, 7, ({"state": {}}, {"state": {}}))
    assert store_initial_weights(any_store, start) == start.id
    again = load_initial_weights(any_store, start.id)
    assert (again.origin, again.config_text, again.step, again.optimizers) == (
        start.origin,
        start.config_text,
        7,
        start.optimizers,
    )
    assert torch.equal(again.weights["w"], torch.ones(2))
    any_store.delete(f"bases/{start.id}/base.json")
    with pytest.raises(TrainingError, match="initial weights of this run are not in the store"):
        load_initial_weights(any_store, start.id)


@pytest.mark.parametrize("broken", ["empty", "no config", "not a checkpoint", "not RAVE's"])
def test_what_is_no_stock_run_is_refused(broken: str, tmp_path: Path) -> None:
    if broken != "empty":
        (tmp_path / "run").mkdir()
        torch.save({"weights": 1}, tmp_path / "run" / "last.ckpt")
    if broken.startswith("not"):
        (tmp_path / "run" / "config.gin").write_text("CAPACITY = 4\n")
    if broken == "not a checkpoint":
        (tmp_path / "run" / "last.ckpt").write_bytes(b"PK no zip")
    with pytest.raises(ConfigurationError) as caught:
        weights_of_stock_run(tmp_path / "run", resume=False, ema=False)
    assert str(tmp_path) in caught.value.where


def test_runs_without_a_base_keep_their_identity() -> None:
    spec = TrainingSpec(
        **{"library": "band", "instrument": "plucks", "dataset": "0" * 12, "config": ("v2_small",), "override": SMALL},
        **{"sample_rate": RATE, "channels": 1, "window": WINDOW, "batch": 2, "budget": Budget(steps=6), "seed": 3},
    )
    assert spec.run_id == "b722e499d419"
    assert spec.model_copy(update={"base": "a" * 12}).run_id != spec.run_id


def test_a_base_is_a_name_or_a_stock_run() -> None:
    assert BaseSpec.model_validate("rebana@1a2b").model == "rebana@1a2b"
    for wrong in (
        {},
        {"model": "x", "stock": "y"},
        {"model": "x", "resume": True},
        {"stock": "y", "resume": True, "ema": True},
    ):
        with pytest.raises(ValueError):
            BaseSpec.model_validate(wrong)
