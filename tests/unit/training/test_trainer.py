from __future__ import annotations

import gc
import json
import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rave_dist.errors import ConfigurationError, NotFiniteError
from rave_dist.options import Budget, CheckpointPolicy, Recovery, Until
from rave_dist.rave.models import build_model
from rave_dist.records import BestWeights, RunResult, TrainingSpec, Validation
from rave_dist.storage.store import Store
from rave_dist.training import schedule, trainer
from rave_dist.training.data.loader import Windows
from rave_dist.training.evaluation.latent_pca import fit_latent
from rave_dist.training.heartbeat import sigterm_as_flag, termination_requested
from rave_dist.training.schedule import Schedule
from rave_dist.training.state.checkpoint import load_checkpoint
from rave_dist.training.state.outputs import read_result
from rave_dist.training.state.run_state import RunState
from rave_dist.training.trainer import Outcome, train
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

STEPS = 9
WINDOW = 40960


@dataclass(frozen=True)
class Recording:
    pcm: npt.NDArray[np.int16]


def _plucks(seconds: float, seed: int) -> Recording:
    """Decaying tones of random pitch, four a second."""
    random, rate = np.random.default_rng(seed), 44100
    time = np.arange(int(seconds * rate)) / rate
    since = time % 0.25
    pitch = random.uniform(150, 900, size=int(seconds * 4) + 1)[(time * 4).astype(int)]
    sound = 0.5 * np.exp(-12 * since) * np.sin(2 * np.pi * pitch * since)
    return Recording((sound * 32767).astype(np.int16)[None])


TRAIN = [_plucks(6, 1)]
HELD_OUT = [_plucks(1, 2)]
_spec = partial(
    training_spec,
    **{"instrument": "plucks", "config": ("v2_tiny",), "override": {}, "window": WINDOW},
    **{"budget": Budget(steps=STEPS), "checkpoint": CheckpointPolicy(steps=4)},
)


def _train(store: Store, spec: TrainingSpec, **options: Any) -> Outcome:
    torch.set_num_threads(1)
    return train(store, spec, TRAIN, HELD_OUT, **options)


def _weights(store: Store, spec: TrainingSpec, tmp_path: Path, file: str = "weights.pt") -> dict[str, torch.Tensor]:
    path = store.download(f"{spec.run_key}/{file}", tmp_path / file)
    return torch.load(path, weights_only=True)


PHASE_1 = "weights_phase_1.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, TrainingSpec, list[RunState]]:
    """A run that nothing interrupted, and what it told on its way."""
    store, spec = Store(str(tmp_path_factory.mktemp("whole"))), _spec()
    told: list[RunState] = []
    outcome = _train(store, spec, on_progress=lambda state, speed: told.append(RunState(**vars(state))))
    assert outcome == Outcome(finished=True, step=STEPS, phase=2)
    return store, spec, told


def test_a_run_goes_through_both_phases_and_leaves_what_a_model_is_made_of(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    store, spec, told = whole
    result = read_result(store, spec)
    assert result is not None
    assert (result.phase, result.step, result.steps, result.phase_1_steps) == (2, STEPS, STEPS, 6)
    assert result.complete is True
    assert result.seconds > 0
    first, last = result.validation.first, result.validation.last
    assert first is not None
    assert last is not None
    assert last < first
    assert [state.phase for state in told] == [1] * 7 + [2] * 3 + [2]
    assert json.loads(store.read_bytes(spec.folder.spec)) == spec.to_json()

    config_text = store.read_bytes(spec.folder.config).decode()
    model = build_model(config_text, channels=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(_weights(store, spec, tmp_path))
    after = model.state_dict()
    for part in ("encoder", "decoder", "discriminator"):
        assert any(not torch.equal(before[n], after[n]) for n in after if n.startswith(part)), f"{part} was not trained"
    assert all(9000 < samples < 12000 for samples in model.receptive_field.tolist())
    fidelity = model.fidelity
    assert fidelity[-1] == pytest.approx(1, abs=1e-5)
    assert torch.all(fidelity.diff() >= 0)


def test_curves_and_events_have_raves_names(whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path) -> None:
    store, spec, _ = whole
    curves = store.read_json(spec.folder.metrics)
    assert (curves["steps"], curves["phase_1_steps"]) == (STEPS, 6)
    assert [row["step"] for row in curves["train"]] == list(range(1, STEPS + 1))
    assert [row["phase"] for row in curves["train"]] == [1] * 6 + [2] * 3
    assert [row["step"] for row in curves["validation"]] == [0, 6, 9]
    assert all(
        0.3 < row["training"] / row["held_out"] < 3 for row in curves["validation"]
    )  # the same measure of the same sounds
    seen = {name for row in curves["train"] for name in row["values"]}
    assert {"fullband_spectral_distance", "multiband_spectral_distance", "beta_factor", "loss_dis", "adversarial"} <= seen

    for entry in store.list(spec.folder.events):
        store.download(entry.key, tmp_path / entry.key.rpartition("/")[2])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"validation", "fullband_spectral_distance", "loss_dis", "pred_real", "feature_matching"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("validation")] == [0, 6, 9]


def test_the_same_spec_gives_the_same_weights(whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path) -> None:
    store, spec, _ = whole
    again = Store(str(tmp_path / "again"))
    _train(again, spec)
    first, second = _weights(store, spec, tmp_path / "a"), _weights(again, spec, tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = _spec(seed=4)
    _train(again, other)
    third = _weights(again, other, tmp_path / "c")
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("at", [3, 7], ids=["phase 1", "phase 2"])
def test_a_stopped_run_is_playable_and_goes_on_to_the_same_weights(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path, at: int
) -> None:
    store, spec = Store(str(tmp_path / "stopped")), _spec(checkpoint=CheckpointPolicy())
    assert spec.run_key == whole[1].run_key  # when a run saves itself is no part of what it computes
    steps: list[int] = []
    outcome = _train(store, spec, on_progress=lambda state, speed: steps.append(state.step), stop=lambda: steps[-1] >= at)
    assert outcome == Outcome(finished=False, step=at, phase=1 if at <= 6 else 2)
    result = read_result(store, spec)
    assert result is not None
    assert result.complete is False
    assert (result.step, result.steps) == (at, STEPS)
    build_model(store.read_bytes(spec.folder.config).decode(), channels=1).load_state_dict(_weights(store, spec, tmp_path))
    torch.manual_seed(99)  # what else this process did meanwhile does not matter
    steps.clear()
    assert _train(store, spec, on_progress=lambda state, speed: steps.append(state.step)).finished
    assert steps[0] == at
    expected, resumed = _weights(whole[0], spec, tmp_path / "a"), _weights(store, spec, tmp_path / "b")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    expected_curves = whole[0].read_json(spec.folder.metrics)
    curves = store.read_json(spec.folder.metrics)
    assert curves["train"] == expected_curves["train"]


def test_a_run_goes_on_in_the_parts_that_it_began_with(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trained(name: str, at: int, *accumulation_steps: int) -> dict[str, torch.Tensor]:
        """The weights of a run that is stopped once, with so many parts asked for before and after."""
        store, spec, steps = Store(str(tmp_path / name)), _spec(checkpoint=CheckpointPolicy()), list[int]()
        for asked in accumulation_steps:
            _train(
                store,
                spec,
                accumulation_steps=asked,
                on_progress=lambda state, speed: steps.append(state.step),
                stop=lambda at=at: steps[-1] == at,
            )
            at = STEPS
        result = read_result(store, spec)
        assert result is not None
        assert (result.complete, result.accumulation_steps) == (True, max(accumulation_steps))
        return _weights(store, spec, tmp_path / f"{name}.weights")

    two = trained("whole in parts", STEPS, 2)
    one = _weights(whole[0], whole[1], tmp_path / "one")
    assert any(not torch.equal(one[name], two[name]) for name in one)
    resumed = trained("more memory", 7, 2, 1)
    assert all(torch.equal(two[name], resumed[name]) for name in two)
    assert not caplog.records
    trained("less memory", 7, 1, 2)
    assert "from step 7 on, a step of 2 windows is computed in 2 parts instead of 1" in caplog.text


def test_sigterm_leads_to_a_checkpoint_at_the_next_step(tmp_path: Path) -> None:
    store, spec = Store(str(tmp_path / "termination_requested")), _spec(checkpoint=CheckpointPolicy(steps=100))

    def end_the_machine(state: RunState, speed: float | None) -> None:
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_flag():
        assert not termination_requested()
        outcome = _train(store, spec, on_progress=end_the_machine, stop=termination_requested)
    assert signal.getsignal(signal.SIGTERM) is before
    assert outcome == Outcome(finished=False, step=2, phase=1)
    assert (load_checkpoint(store, spec.folder.checkpoints) or (0, {}))[0] == 2


class Killed(Exception):
    pass


def _wait_for_checkpoint(store: Store, spec: TrainingSpec, step: int) -> None:
    deadline = time.monotonic() + 120
    while not store.exists(f"{spec.run_key}/checkpoints/step-{step:09d}.json"):
        assert time.monotonic() < deadline, "nothing was saved while the loop was busy"
        time.sleep(0.02)


def test_a_step_that_takes_long_need_not_end_before_the_run_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trainer, "LONG_STEP_SECONDS", 0.0)
    store, spec = Store(str(tmp_path / "slow")), _spec(checkpoint=CheckpointPolicy(steps=100))
    stop = threading.Event()

    def be_long(state: RunState, speed: float | None) -> None:
        if state.step == 2:
            stop.set()
            _wait_for_checkpoint(store, spec, 2)
            raise Killed

    with pytest.raises(Killed):
        _train(store, spec, on_progress=be_long, stop=stop.is_set)


def test_a_run_that_is_stopped_and_killed_in_a_validation_does_it_again(
    whole: tuple[Store, TrainingSpec, list[RunState]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, spec = Store(str(tmp_path / "store")), _spec(checkpoint=CheckpointPolicy(steps=100))
    stop, validate = threading.Event(), trainer.validate
    steps: list[int] = []

    def be_long(*parameters: Any, **options: Any) -> dict[str, float]:
        if steps[-1:] == [5]:  # step 6 is done, the last of phase 1
            stop.set()
            _wait_for_checkpoint(store, spec, 6)
            raise Killed
        return validate(*parameters, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", be_long)
        with pytest.raises(Killed):
            _train(store, spec, on_progress=lambda state, speed: steps.append(state.step), stop=stop.is_set)
    assert _train(store, spec, on_progress=lambda state, speed: steps.append(state.step)).finished
    assert steps == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    expected, resumed = _weights(whole[0], spec, tmp_path / "a"), _weights(store, spec, tmp_path / "b")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    expected_curves, curves = (where.read_json(spec.folder.metrics) for where in (whole[0], store))
    assert curves["validation"] == expected_curves["validation"]


def test_a_killed_run_goes_on_from_its_last_good_checkpoint(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    store, spec = Store(str(tmp_path / "killed")), _spec(checkpoint=CheckpointPolicy(steps=3))

    def die(state: RunState, speed: float | None) -> None:
        if state.step == 8:
            raise Killed

    with pytest.raises(Killed):
        _train(store, spec, on_progress=die)
    assert read_result(store, spec) is None
    newest = f"{spec.run_key}/checkpoints/step-000000006.pt"
    store.write_bytes(newest, store.read_bytes(newest)[:5000])  # and the disk lost the end of the newest checkpoint
    steps: list[int] = []
    _train(store, spec, on_progress=lambda state, speed: steps.append(state.step))
    assert steps[0] == 3
    expected, resumed = _weights(whole[0], spec, tmp_path / "a"), _weights(store, spec, tmp_path / "b")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def _poison() -> None:
    """Makes a weight of every model of this process NaN."""
    for model in [thing for thing in gc.get_objects() if type(thing).__name__ == "RAVE"]:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step_and_the_batch(tmp_path: Path) -> None:
    store, spec = Store(str(tmp_path / "broken")), _spec(seed=5, checkpoint=CheckpointPolicy(steps=3))
    with pytest.raises(NotFiniteError, match="is NaN or infinite at step 4, of a batch with segment 0 at") as caught:
        _train(store, spec, on_progress=lambda state, speed: _poison() if state.step == 4 else None)
    assert caught.value.where == "plucks"
    for word in ("seed", "recover"):
        assert word in caught.value.fix
    step, good = load_checkpoint(store, spec.folder.checkpoints) or (0, {})
    assert step == 3
    assert all(bool(value.isfinite().all()) for value in good["model"].values())
    assert read_result(store, spec) is None

    told = store.read_json(spec.folder.not_finite)
    windows = Windows(TRAIN, window=WINDOW, batch=2, seed=5, device="cpu")
    for _ in range(5):
        windows.next_batch()
    assert told["step"] == 4
    assert [window["sample"] for window in told["windows"]] == [offset for _, offset in windows.places]
    assert [window["source"] for window in told["windows"]] == ["segment 0", "segment 0"]


def test_a_run_recovers_with_a_lower_rate_and_says_so(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    store, spec = Store(str(tmp_path / "store")), _spec(checkpoint=CheckpointPolicy(steps=3), recover=Recovery(rate=0.25))
    assert spec.run_key == whole[1].run_key  # so that it finds the checkpoints of a run that failed
    steps: list[int] = []

    def poison_twice(state: RunState, speed: float | None) -> None:
        steps.append(state.step)
        if steps.count(5) <= 2 and state.step == 5:
            _poison()

    assert _train(store, spec, on_progress=poison_twice, stop=lambda: steps[-3:] == [4, 5, 6]) == Outcome(False, 6, 1)
    assert steps == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 6]
    assert _train(store, spec, on_progress=poison_twice).finished
    result = read_result(store, spec)
    assert result is not None
    assert [(rollback.step, rollback.rate) for rollback in result.rollbacks] == [(5, 0.25)] * 2
    rates = []
    for where in (whole[0], store):
        _, state = load_checkpoint(where, spec.folder.checkpoints) or (0, {})
        optimizers = (
            state["training"][f"{name}_optimizer"]["param_groups"][0]["lr"] for name in ("generator", "discriminator")
        )
        rates.append([*optimizers, *state["training"]["scheduler"]["base_lrs"]])
    assert rates[1] == pytest.approx([rate / 16 for rate in rates[0]], rel=1e-12)


def test_a_rollback_in_phase_2_leaves_the_best_of_phase_1_as_it_was(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    store, spec = Store(str(tmp_path / "store")), _spec(checkpoint=CheckpointPolicy(steps=7), recover=Recovery(rate=0.25))
    steps: list[int] = []

    def poison_once(state: RunState, speed: float | None) -> None:
        steps.append(state.step)
        if steps.count(8) == 1 and state.step == 8:
            _poison()

    assert _train(store, spec, on_progress=poison_once).finished
    assert steps.count(8) == 2
    expected, same = (_weights(where, spec, tmp_path / name, PHASE_1) for where, name in ((whole[0], "a"), (store, "b")))
    assert all(torch.equal(expected[name], same[name]) for name in expected)
    first, result = read_result(whole[0], spec), read_result(store, spec)
    assert first is not None
    assert result is not None
    assert result.phase_1 == first.phase_1
    assert result.phase_1 is not None
    assert result.phase_1.step == 6


def test_a_run_that_fails_again_and_again_ends(tmp_path: Path) -> None:
    store, spec = Store(str(tmp_path / "store")), _spec(seed=5, recover=Recovery(times=2))
    steps: list[int] = []

    def poison(state: RunState, speed: float | None) -> None:
        steps.append(state.step)
        if state.step == 1:
            _poison()

    with pytest.raises(NotFiniteError, match="at step 1"):
        _train(store, spec, on_progress=poison)
    assert steps == [0, 1] * 3  # without a checkpoint it begins again


def test_recovery_changes_nothing_for_a_run_that_is_well(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    store, spec = Store(str(tmp_path / "store")), _spec(recover=Recovery())
    _train(store, spec)
    expected, same = _weights(whole[0], spec, tmp_path / "a"), _weights(store, spec, tmp_path / "b")
    assert all(torch.equal(expected[name], same[name]) for name in expected)


def test_a_checkpoint_of_other_shapes_is_refused_with_a_diff(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    small, large = (_spec(config=("v2_small",), override={"CAPACITY": n, "LATENT_SIZE": 8}) for n in (4, 6))
    _train(store, small, stop=lambda: True, on_progress=lambda state, speed: None)
    for entry in list(store.list(small.folder.checkpoints)):
        store.write_bytes(entry.key.replace(small.run_key, large.run_key), store.read_bytes(entry.key))
    with pytest.raises(ConfigurationError, match=r"! encoder\S+ \[4, \d+, \d+\] -> \[6, ") as caught:
        _train(store, large)
    assert large.run_key in caught.value.where


def test_a_window_that_is_too_short_is_refused_before_the_first_step(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "short"))
    with pytest.raises(ConfigurationError, match="too short"):
        _train(store, _spec(window=16384))


def test_hours_are_spent_in_both_phases_and_then_the_run_is_complete(tmp_path: Path) -> None:
    seconds = 12.0
    store, spec = Store(str(tmp_path / "hours")), _spec(budget=Budget(hours=seconds / 3600))
    outcome = _train(store, spec)
    result = read_result(store, spec)
    assert result is not None
    assert outcome.finished
    assert result.complete is True
    assert result.steps == result.step
    assert 0 < result.phase_1_steps < result.steps
    assert result.phase == 2
    assert result.seconds >= seconds


def test_of_hours_and_steps_the_first_to_be_used_up_ends_the_run(
    whole: tuple[Store, TrainingSpec, list[RunState]], tmp_path: Path
) -> None:
    """With time enough the weights are those of the steps alone; without, the run ends in time in phase 2."""
    store, spec, _ = whole
    steps = spec.budget.steps
    both = spec.model_copy(update={"budget": Budget(steps=steps, hours=10)})
    other = Store(str(tmp_path / "both"))
    _train(other, both)
    found, expected = _weights(other, both, tmp_path / "both"), _weights(store, spec, tmp_path / "steps")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    short = spec.model_copy(update={"budget": Budget(steps=1_000_000, hours=4 / 3600)})
    _train(other, short)
    result = read_result(other, short)
    assert result is not None
    assert (result.complete, result.phase) == (True, 2)
    assert result.seconds >= 4
    assert result.step < 1_000_000


def test_the_best_of_phase_2_is_exported_and_never_one_of_phase_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Held-out distances as runs of hours have them: lowest before the discriminator, then rising."""
    distances = {0: 9.0, 8: 1.0, 9: 3.5, 10: 3.0, 20: 2.0, 25: 4.0, 30: 2.5}
    scripted = iter([distance for distance in distances.values() for _ in ("held out", "training audio")])
    monkeypatch.setattr(trainer, "validate", lambda *_, **__: {"validation": next(scripted)})
    store = Store(str(tmp_path / "store"))
    spec = _spec(
        budget=Budget(steps=30),
        override={"CAPACITY": 4, "LATENT_SIZE": 8, "PHASE_1_DURATION": 8},
        checkpoint=CheckpointPolicy(steps=10, keep=100),
    )

    def exported(until: int) -> RunResult:
        steps: list[int] = []
        _train(store, spec, on_progress=lambda state, speed: steps.append(state.step), stop=lambda: steps[-1] >= until)
        result = read_result(store, spec)
        assert result is not None
        weights = _weights(store, spec, tmp_path)
        key = f"{spec.run_key}/checkpoints/step-{result.best_step:09d}.pt"
        trained = torch.load(store.download(key, tmp_path / "checkpoint.pt"), weights_only=True)["model"]
        assert all(torch.equal(weights[n], trained[n]) for n in trained if n.startswith(("encoder", "decoder", "discrim")))
        model = build_model(store.read_bytes(spec.folder.config).decode(), channels=1)
        model.load_state_dict(weights)
        fit_latent(model, TRAIN, window=WINDOW, device="cpu")  # the latent axes are those of the weights beside them
        assert torch.equal(model.latent_pca, weights["latent_pca"])
        return result

    cut = exported(9)  # one step after the switch
    assert (cut.phase, cut.step, cut.best_step, cut.complete) == (2, 9, 9, False)
    later = exported(25)
    assert (later.step, later.best_step, later.complete) == (25, 20, False)
    assert later.validation == Validation(first=9.0, best=2.0, last=4.0)
    whole = exported(1000)  # the best weights came through two ends of the process
    assert (whole.step, whole.best_step, whole.complete) == (30, 20, True)


def test_the_best_of_phase_1_is_kept_beside_that_of_phase_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three validations in each phase, the best of each neither its first nor its last."""
    distances = {0: 9.0, 2: 3.0, 4: 2.0, 6: 2.5, 8: 6.0, 10: 5.0, 12: 5.5}
    monkeypatch.setattr(schedule, "VALIDATE_AT_MOST_EVERY", 2)
    spec = _spec(
        budget=Budget(steps=12),
        override={"CAPACITY": 4, "LATENT_SIZE": 8, "PHASE_1_DURATION": 6},
        checkpoint=CheckpointPolicy(steps=2, keep=100),
    )

    def end(store: Store, *, until: int = 100) -> RunResult:
        """Trains until then, or to the end; returns the result."""
        done = (load_checkpoint(store, spec.folder.checkpoints) or (-1, {}))[0]
        scripted = iter([value for step, value in distances.items() if step > done for _ in ("held out", "training audio")])
        monkeypatch.setattr(trainer, "validate", lambda *_, **__: {"validation": next(scripted)})
        steps: list[int] = []
        _train(store, spec, on_progress=lambda state, speed: steps.append(state.step), stop=lambda: steps[-1] >= until)
        result = read_result(store, spec)
        assert result is not None
        return result

    store = Store(str(tmp_path / "store"))
    cut = end(store, until=6)
    assert (cut.phase, cut.best_step, cut.phase_1) == (1, 4, None)  # it is what an export takes
    assert not store.exists(f"{spec.run_key}/{PHASE_1}")
    published = _weights(store, spec, tmp_path / "cut")
    cut = end(store, until=8)
    assert (cut.phase, cut.best_step, cut.phase_1) == (2, 8, BestWeights(step=4, distance=2.0))
    for _ in range(2):  # where it was cut, and after it went on from there
        kept = _weights(store, spec, tmp_path, PHASE_1)
        assert all(torch.equal(published[name], kept[name]) for name in published)  # with its own latent axes
        result = end(store)
    assert (result.best_step, result.complete, result.phase_1) == (10, True, BestWeights(step=4, distance=2.0))
    best = _weights(store, spec, tmp_path)
    assert any(not torch.equal(best[name], kept[name]) for name in best if name.startswith("decoder"))


def test_patience_ends_each_phase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Phase 1 after two validations without an improvement of a percent; phase 2 likewise, once the discriminator had its least
    share, a quarter of phase 1."""
    distances = {0: 9.0, 3: 5.0, 6: 4.99, 9: 4.98, 12: 6.0, 15: 6.5, 18: 6.1}
    monkeypatch.setattr(schedule, "VALIDATE_AT_MOST_EVERY", 3)

    def validations(*more: tuple[int, float]) -> None:
        scripted = iter([d for _, d in sorted([*distances.items(), *more]) for _ in ("held out", "training audio")])
        monkeypatch.setattr(trainer, "validate", lambda *_, **__: {"validation": next(scripted)})

    spec = _spec(
        budget=Budget(steps=40, until=Until(patience=2)),
        override={"CAPACITY": 4, "LATENT_SIZE": 8},
        checkpoint=CheckpointPolicy(steps=100),
    )
    whole, cut = Store(str(tmp_path / "whole")), Store(str(tmp_path / "cut"))
    validations()
    assert _train(whole, spec) == Outcome(finished=True, step=18, phase=2)
    result = read_result(whole, spec)
    assert result is not None
    assert (result.phase_1_steps, result.steps, result.best_step, result.complete) == (9, 18, 12, True)

    validations((8, 3.0), (16, 7.0))  # a stop validates what it leaves; that changes nothing for the run that goes on
    steps: list[int] = []
    for until in (8, 16, 100):
        _train(
            cut, spec, on_progress=lambda state, speed: steps.append(state.step), stop=lambda until=until: steps[-1] >= until
        )
    again = read_result(cut, spec)
    assert again is not None
    assert again.model_copy(update={"seconds": 0}) == result.model_copy(update={"seconds": 0})
    assert result.phase_1 == BestWeights(step=9, distance=4.98)  # closest by less than patience asks for, and yet the closest
    for file in ("weights.pt", PHASE_1):
        expected, resumed = _weights(whole, spec, tmp_path / "a", file), _weights(cut, spec, tmp_path / "b", file)
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)


_DISTANCES = st.lists(st.floats(0.1, 10), min_size=1, max_size=60)


@given(phase_1=st.integers(1, 40), distances=_DISTANCES)
def test_which_weights_are_exported(phase_1: int, distances: list[float]) -> None:
    state = RunState(Schedule(steps=60, phase_1_steps=phase_1, warmup_steps=1, validate_every=1))
    for state.step, distance in enumerate(distances):
        state.record_validation(distance)
    if state.step == 0:
        assert state.best is None
        return
    assert state.best is not None
    assert RunState.from_saved(state.to_saved()) == state
    before = distances[1 : phase_1 + 1]  # phase 2 changes nothing of what was the best of phase 1
    assert state.bests[1].distance == min(before)
    assert state.bests[1].step == 1 + before.index(min(before))
    assert state.best.distance == distances[state.best.step] == state.validation.best
    if state.phase == 1:
        assert state.best.distance == min(distances[1:])
    elif state.step - phase_1 <= phase_1 / 4:
        assert state.best.step == state.step  # as much of the discriminator as there is
    else:
        assert state.best.step - phase_1 >= phase_1 / 4
        assert state.best.distance <= min(distances[math.ceil(phase_1 * 5 / 4) :])
