from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from rave_dist.options import Budget
from rave_dist.records import RunResult, TrainingSpec, Validation, run_record_key
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import (
    Heartbeat,
    Speed,
    disown,
    read_live_records,
    read_records,
    record_of,
    stop_key,
    stop_through_store,
    write_record,
)
from tests.sample_records import run_record, training_spec

_record = partial(run_record, state="running")


def test_an_instrument_that_never_ran_is_waiting(any_store: Store) -> None:
    write_record(any_store, _record())
    tabla, rebana = read_records(any_store, "band", ["tabla", "rebana"])
    assert (tabla.instrument, tabla.state) == ("tabla", "running")
    assert (rebana.instrument, rebana.state, rebana.step) == ("rebana", "waiting", 0)


def test_a_running_record_that_went_silent_is_waiting(local_store: Store) -> None:
    long_ago = (datetime.now(UTC) - timedelta(seconds=130)).isoformat(timespec="seconds")
    for state, expected in (("running", "waiting"), ("done", "done"), ("failed", "failed")):
        record = _record(state=state, step=70, updated_at=long_ago, steps_per_second=2.0)
        local_store.write_json(record.key, record.to_json())
        (read,) = read_records(local_store, "band", ["tabla"])
        assert (read.state, read.step) == (expected, 70)


def test_a_run_that_died_is_known_within_seconds_whatever_its_clock(local_store: Store) -> None:
    """One machine's clock is a minute ahead; both runs were silent for a while, and one of them writes again."""
    for name, offset in (("dead", -10), ("slow", -10), ("dead ahead", 60), ("ahead", 60)):
        moment = (datetime.now(UTC) + timedelta(seconds=offset)).isoformat(timespec="seconds")
        record = _record(instrument=name, updated_at=moment)
        local_store.write_json(record.key, record.to_json())

    def write_again() -> None:
        for name, offset in (("slow", 0), ("ahead", 63)):
            moment = (datetime.now(UTC) + timedelta(seconds=offset)).isoformat(timespec="seconds")
            record = _record(instrument=name, updated_at=moment)
            local_store.write_json(record.key, record.to_json())

    alive = threading.Timer(0.3, write_again)
    alive.start()
    records = read_live_records(local_store, "band", ["dead", "slow", "dead ahead", "ahead"], watch_seconds=3.0)
    alive.join()
    assert {r.instrument: r.state for r in records} == {
        "dead": "waiting",
        "slow": "running",
        "dead ahead": "waiting",
        "ahead": "running",
    }


def test_another_runs_record_is_not_this_runs(local_store: Store) -> None:
    spec, another = (training_spec(seed=seed, budget=Budget(steps=30)) for seed in (1, 2))
    write_record(local_store, _record(run_id=spec.run_id, step=12))
    assert record_of(local_store, spec).step == 12
    other = record_of(local_store, another)
    assert (other.step, other.steps, other.state) == (0, 30, "waiting")


def test_a_run_that_ended_is_known_by_its_result(local_store: Store) -> None:
    """Its record may belong to a later run by now, or be cut."""
    spec, another = (training_spec(seed=seed, budget=Budget(steps=30)) for seed in (1, 2))
    numbers = {"phase": 2, "step": 30, "steps": 30, "phase_1_steps": 12, "train_distance": 2.5, "seconds": 7.0}
    validation = Validation(first=9.0, best=3.0, last=4.0)
    RunResult(**numbers, best_step=28, validation=validation, complete=True).save(local_store, spec.folder.result)
    write_record(local_store, _record(run_id=another.run_id, step=12))
    for damage in (lambda: None, lambda: local_store.write_bytes(run_record_key("band", "tabla"), b"{")):
        damage()
        record = record_of(local_store, spec)
        assert record.validation == validation
        assert {name: getattr(record, name) for name in numbers} == numbers


def test_a_heart_beats_until_its_end_and_hears_the_wish_to_stop(any_store: Store) -> None:
    with Heartbeat(any_store, _record(), stop="stop", every=0.02) as beat:
        assert any_store.exists(run_record_key("band", "tabla"))
        beat.update(step=5)
        _wait(lambda: read_records(any_store, "band", ["tabla"])[0].step == 5)
        assert not beat.stop_requested
        any_store.write_bytes("stop", b"")
        _wait(lambda: beat.stop_requested)
        beat.update(step=9, state="waiting")
    (last,) = read_records(any_store, "band", ["tabla"])
    assert (last.step, last.state) == (9, "waiting")


def test_only_the_process_that_is_asked_stops(local_store: Store) -> None:
    """A run continues elsewhere while its earlier process, out of reach, may still live."""
    spec = training_spec()
    with (
        Heartbeat(local_store, _record(attempt="earlier"), stop=stop_key(spec), every=0.02) as earlier,
        Heartbeat(local_store, _record(attempt="later"), stop=stop_key(spec), every=0.02) as later,
    ):
        disown(local_store, spec, earlier.record)
        _wait(lambda: earlier.stop_requested)
        beat = later.record.updated_at
        _wait(lambda: later.record.updated_at > beat)
        assert not later.stop_requested
        local_store.write_bytes(stop_key(spec), b"")
        _wait(lambda: later.stop_requested)


def test_runs_out_of_reach_are_asked_to_stop_and_waited_for(any_store: Store) -> None:
    """Also one whose process is late, and writes its record after the request."""
    specs = [training_spec(instrument=name) for name in ("tabla", "rebana")]
    stopped = list[str]()

    def train(spec: TrainingSpec, late: float) -> None:
        time.sleep(late)
        record = record_of(any_store, spec).model_copy(update={"state": "running", "attempt": f"{late}"})
        with Heartbeat(any_store, record, stop=stop_key(spec), every=0.05) as beat:
            while not beat.stop_requested:
                time.sleep(0.01)
            time.sleep(0.2)  # it saves its state
            stopped.append(spec.instrument)
            beat.update(state="waiting")

    write_record(any_store, record_of(any_store, specs[0]).model_copy(update={"state": "running"}))
    runs = [threading.Thread(target=train, args=(spec, late)) for spec, late in zip(specs, (0.0, 0.5), strict=True)]
    for run in runs:
        run.start()
    stop_through_store(any_store, specs)
    assert "tabla" in stopped
    for run in runs:
        run.join()
    assert sorted(stopped) == ["rebana", "tabla"]


def test_a_store_that_is_away_for_a_moment_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its folder becomes a file, so that every write fails; exchanged in one step, because a beat would make it again."""

    def place(what: Path) -> None:
        (tmp_path / "next").symlink_to(what)
        (tmp_path / "next").replace(tmp_path / "store")

    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    place(folder)
    store = Store(str(tmp_path / "store"))
    with Heartbeat(store, _record(), every=0.02) as beat:
        place(file)
        _wait(lambda: "could not be written" in caplog.text)
        place(folder)
        beat.update(step=3)
    assert read_records(store, "band", ["tabla"])[0].step == 3


def test_speed_is_of_the_last_moments() -> None:
    moment = 0.0
    speed = Speed(span=20.0, clock=lambda: moment)
    assert speed.update(0) is None
    for step in range(1, 101):  # two steps a second
        moment += 0.5
        slow = speed.update(step)
    assert slow == pytest.approx(2)
    for step in range(101, 501):  # then ten a second
        moment += 0.1
        fast = speed.update(step)
    assert fast == pytest.approx(10)


def test_a_runs_wish_to_stop_lies_in_its_folder() -> None:
    spec = training_spec()
    assert stop_key(spec).startswith(spec.run_key + "/")


def _wait(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen")
        time.sleep(0.01)
