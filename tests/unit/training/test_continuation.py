"""A larger budget continues a run: which run, with which schedule, and to the same weights every time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rave_dist.errors import TrainingError
from rave_dist.options import Budget, Until
from rave_dist.records import CheckpointInfo, Continuation, RunResult, TrainingSpec, Validation
from rave_dist.storage.store import Store
from rave_dist.training.continuation import plan_continuation
from rave_dist.training.schedule import Schedule, StepTimes, extended_schedule
from rave_dist.training.state.outputs import read_result
from rave_dist.training.state.run_state import RunState
from rave_dist.training.trainer import train


@dataclass(frozen=True)
class Recording:
    pcm: npt.NDArray[np.int16]


def _spec(steps: int = 9, **changes: Any) -> TrainingSpec:
    values = {
        **{"library": "band", "instrument": "plucks", "dataset": "0" * 12, "config": ("v2_tiny",), "override": {"CAPACITY": 4}},
        **{"sample_rate": 44100, "channels": 1, "window": 40960, "batch": 2, "budget": Budget(steps=steps), "seed": 3},
        "checkpoint": {"steps": 4},
    }
    return TrainingSpec(**{**values, **changes})


def _put(
    store: Store, spec: TrainingSpec, *, checkpoint: int | None, result: int | None = None, seconds: float = 60.0
) -> TrainingSpec:
    """What a run leaves that decides about its continuation."""
    spec.save(store, spec.folder.spec)
    if checkpoint is not None:
        store.write_bytes(f"{spec.folder.checkpoints}/step-{checkpoint:09d}.pt", b"weights")
        info = CheckpointInfo(step=checkpoint, sha256="0" * 64, bytes=7)
        info.save(store, f"{spec.folder.checkpoints}/step-{checkpoint:09d}.json")
    if result is not None:
        steps = {"step": result, "best_step": result, "steps": result, "phase_1_steps": 6}
        complete = result == spec.budget.steps
        RunResult(phase=2, **steps, complete=complete, validation=Validation(), seconds=seconds).save(store, spec.folder.result)
    return spec


def test_the_identity_of_runs_that_continue_nothing_is_as_before() -> None:
    assert _spec().run_id == "3476b905b3d2"
    continued = _spec(continues=Continuation(run_id="abc", step=9))
    assert len({_spec().run_id, continued.run_id, _spec(continues=Continuation(run_id="abc", step=8)).run_id}) == 3
    assert continued.settings_id == _spec(24).settings_id == _spec().settings_id
    assert _spec(seed=4).settings_id != _spec().settings_id


def test_records_that_a_crash_cut_do_not_stop_the_run_that_writes_them_again(any_store: Store) -> None:
    nine = _put(any_store, _spec(), checkpoint=9, result=9)
    other = _put(any_store, _spec(seed=4), checkpoint=4)
    any_store.write_bytes(other.folder.spec, b'{"library":"ba')
    any_store.write_bytes(nine.folder.result, b"")
    assert plan_continuation(any_store, _spec()).spec == nine
    assert plan_continuation(any_store, _spec(seed=4)).spec == other
    any_store.write_bytes(nine.folder.spec, b"{}")
    assert plan_continuation(any_store, _spec()).spec == nine


def test_a_larger_budget_continues_the_longest_run_within_it(any_store: Store) -> None:
    assert plan_continuation(any_store, _spec()).spec == _spec()
    assert plan_continuation(any_store, _spec()).note == ""
    nine = _put(any_store, _spec(), checkpoint=9, result=9)
    assert plan_continuation(any_store, _spec()).spec == nine
    planned = plan_continuation(any_store, _spec(24))
    assert planned.spec == _spec(24, continues=Continuation(run_id=nine.run_id, step=9))
    assert planned.note == "continues the run of 9 steps"
    assert plan_continuation(any_store, _spec(24)).spec.run_id == planned.spec.run_id

    # Once it has begun it is resumed, whatever other runs there are since, with what is not part of its identity.
    _put(any_store, planned.spec, checkpoint=12)
    _put(any_store, _spec(18), checkpoint=18, result=18)
    credit = {"performer": "Ada"}
    assert plan_continuation(any_store, _spec(24, credit=credit)).spec == planned.spec.model_copy(update={"credit": credit})
    assert plan_continuation(any_store, _spec(30)).spec.continues == Continuation(run_id=_spec(18).run_id, step=18)


def test_an_interrupted_run_goes_on_with_another_budget(local_store: Store) -> None:
    cut = _put(local_store, _spec(24), checkpoint=8, result=10)
    for steps in (48, 16):
        planned = plan_continuation(local_store, _spec(steps))
        assert planned.spec.continues == Continuation(run_id=cut.run_id, step=8)
        assert planned.note == "continues the run of 8 steps"
    assert plan_continuation(local_store, _spec(24)).spec == cut


def test_hours_and_steps_are_compared_by_what_a_run_has_used(local_store: Store) -> None:
    _put(local_store, _spec(), checkpoint=9, result=9, seconds=7200)
    more, less = (plan_continuation(local_store, _spec(budget=Budget(hours=hours))) for hours in (3, 2))
    assert more.spec.continues is not None
    assert less.spec.continues is None
    assert plan_continuation(local_store, _spec(budget=Budget(until=Until(patience=3)))).spec.continues is not None


def test_a_run_that_was_limited_in_time_is_the_same_if_it_did_all_steps(local_store: Store) -> None:
    done = _put(local_store, _spec(budget=Budget(steps=9, hours=1)), checkpoint=9, result=9)
    for budget in (Budget(steps=9), Budget(steps=9, hours=2)):
        assert plan_continuation(local_store, _spec(budget=budget)).spec == done
    _put(local_store, _spec(budget=Budget(steps=20, hours=1), seed=4), checkpoint=9, result=9, seconds=3600)
    more, less = (plan_continuation(local_store, _spec(seed=4, budget=Budget(steps=20, hours=hours))) for hours in (2, 0.5))
    assert more.spec.continues is not None
    assert less.spec.continues is None
    assert plan_continuation(local_store, _spec(20, seed=4)).spec.continues is not None


def test_a_run_that_starts_at_step_0_beside_earlier_ones_says_why(local_store: Store) -> None:
    _put(local_store, _spec(), checkpoint=9, result=9)
    smaller = plan_continuation(local_store, _spec(6))
    assert smaller.spec == _spec(6)
    assert smaller.note == "starts at step 0: the run of 9 steps has used this budget already"
    other = plan_continuation(local_store, _spec(24, seed=4, dataset="1" * 12))
    assert other.spec.continues is None
    assert other.note == "starts at step 0: other settings than the run of 9 steps (recordings, budget, seed)"
    local_store.delete_folder(_spec().folder.checkpoints)
    assert plan_continuation(local_store, _spec(24)).note == "starts at step 0: the run of 9 steps has no checkpoint any more"


def test_a_finished_phase_1_stays_and_an_unfinished_one_is_planned_anew() -> None:
    before = Schedule(steps=900, phase_1_steps=600, warmup_steps=12, validate_every=45)

    def extended(budget: Budget, done: int, times: StepTimes | None = None) -> Schedule:
        return extended_schedule(before, budget, step_times=times, override={}, done=done, seconds=100.0)

    assert extended(Budget(steps=1800), 900) == Schedule(1800, 600, 12, 90)
    assert extended(Budget(steps=1800), 600) == Schedule(1800, 600, 12, 90)
    assert extended(Budget(steps=1800), 599) == Schedule(1800, 1200, 12, 90)
    assert extended(Budget(hours=0.1), 900, StepTimes(0.1, 0.2)) == Schedule(900 + 1300, 600, 12, 110)
    assert extended(Budget(hours=0.1), 400, StepTimes(0.1, 0.2)).phase_1_steps > 600


class Killed(Exception):
    """In the place of a SIGKILL: nothing of the loop runs after it."""


def _train(store: Store, spec: TrainingSpec, *, killed_at: int = -1, stopped_at: int = -1) -> list[RunState]:
    torch.set_num_threads(1)
    told: list[RunState] = []

    def tell(state: RunState, speed: float | None) -> None:
        told.append(RunState(**vars(state)))
        if state.step == killed_at:
            raise Killed

    time = np.arange(6 * 44100) / 44100
    sound = 0.5 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * 330 * time)
    recording = Recording((sound * 32767).astype(np.int16)[None])
    held_out = Recording(recording.pcm[:, : 44100 + 4096])
    train(store, spec, [recording], [held_out], on_progress=tell, stop=lambda: bool(told) and told[-1].step == stopped_at)
    return told


def _state(store: Store, spec: TrainingSpec, folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for key in (spec.folder.weights, spec.folder.weights_phase_1):
        loaded = torch.load(store.download(key, folder / "weights.pt"), weights_only=True)
        weights |= {f"{key} {name}": value for name, value in loaded.items()}
    return weights


@pytest.mark.slow
def test_a_continuation_is_the_same_every_time_also_after_a_kill(tmp_path: Path) -> None:
    nine = _spec()
    _train(Store(str(tmp_path / "first")), nine)
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    stores = [Store(str(shutil.copytree(tmp_path / "first", tmp_path / name))) for name in ("second", "third")]
    stores.insert(0, Store(str(tmp_path / "first")))
    weights = []
    for store, killed_at in zip(stores, (-1, 9, 14), strict=True):
        spec = plan_continuation(store, _spec(16)).spec
        if killed_at >= 0:
            with pytest.raises(Killed):
                _train(store, spec, killed_at=killed_at)
            store.delete_folder(nine.run_key)  # it has a checkpoint of its own since its start
        told = _train(store, spec)
        assert told[0].step == (12 if killed_at == 14 else 9)
        result = read_result(store, spec)
        assert result is not None
        assert (result.step, result.steps, result.phase_1_steps, result.complete, result.phase) == (16, 16, 6, True, 2)
        weights.append(_state(store, spec, tmp_path))
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
    assert {path: path.read_bytes() for path in before} == before  # the earlier run stays as it was
    curves = stores[0].read_json(spec.folder.metrics)
    assert [row["step"] for row in curves["validation"]][-1] == 16
    assert {row["step"] for row in curves["train"]} == set(range(1, 17))


@pytest.mark.slow
def test_a_run_stopped_in_phase_1_continues_with_a_longer_one(local_store: Store) -> None:
    _train(local_store, _spec(), stopped_at=4)
    planned = plan_continuation(local_store, _spec(15))
    told = _train(local_store, planned.spec)
    assert (told[0].step, told[-1].step) == (4, 15)
    assert told[0].schedule == Schedule(15, 10, 1, 10)
    assert told[-1].phase == 2


@pytest.mark.slow
def test_a_continuation_without_its_checkpoint_is_refused(local_store: Store) -> None:
    spec = _spec(24, continues=Continuation(run_id="0" * 12, step=9))
    with pytest.raises(TrainingError, match="the checkpoint after 9 steps, which this run continues, is not there"):
        _train(local_store, spec)
