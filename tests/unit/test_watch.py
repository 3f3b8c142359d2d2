"""`rave-dist status --watch`: what it shows while real records change, what it asks of a store, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rave_dist.cli import app
from rave_dist.errors import StoreError
from rave_dist.leases import hold_library
from rave_dist.library.manifest import Library
from rave_dist.options import Budget
from rave_dist.records import Problem, Validation
from rave_dist.storage.local import LocalFolder
from rave_dist.terminal.watch import render, sparkline
from rave_dist.training.heartbeat import write_record
from rave_dist.watch import Snapshot, watch
from tests.sample_records import run_record

TRAINING = {"state": "running", "activity": "training", "steps": 1000, "budget": Budget(steps=1000)}


def library_of(folder: Path, *names: str, store: str = "./store") -> Library:
    instruments = {name: {"sources": ["x.wav"]} for name in names}
    (folder / "library.yaml").write_text(json.dumps({"name": "band", "store": store, "instruments": instruments}))
    return Library.load(folder / "library.yaml")


class Night:
    """What happens between two looks, in order; its clock stands still otherwise."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self.events = iter(events)
        self.now = 100.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        next(self.events)()


def states(snapshot: Snapshot) -> list[tuple[str, str | None]]:
    return [(record.state, record.activity) for record in snapshot.records]


def test_a_night_is_followed_to_its_end(tmp_path: Path) -> None:
    library = library_of(tmp_path, "tabla", "bells")
    store = library.store

    def write(instrument: str, **fields: Any) -> None:
        write_record(store, run_record(instrument=instrument, **fields))

    with ExitStack() as command:
        command.enter_context(hold_library(store, "band", "run"))
        write("tabla", **TRAINING, step=10, steps_per_second=2.0)
        write("bells", activity="waiting", budget=Budget(steps=1000), steps=1000)
        night = Night(
            lambda: write("tabla", state="done"),
            lambda: write("bells", state="failed", error=Problem(what="too little audio")),
            command.close,
        )
        seen = list(watch(library, library.instruments, sleep=night.sleep, clock=night.clock))
    assert [states(snapshot) for snapshot in seen] == [
        [("running", "training"), ("waiting", "waiting")],
        [("done", None), ("waiting", "waiting")],
        [("done", None), ("failed", None)],
        [("done", None), ("failed", None)],
    ]
    assert [snapshot.has_ended for snapshot in seen] == [False, False, False, True], "not before the command has ended"
    left = seen[0].time_left
    assert left is not None
    assert left.seconds == 990 / 2 + 1000 / 2


def test_a_run_that_falls_silent_is_dead_within_fifteen_seconds_whatever_the_clocks(tmp_path: Path) -> None:
    library = library_of(tmp_path, "dead", "alive")
    beats = iter(f"2031-01-01T00:00:{second:02}+00:00" for second in range(60))

    def beat(*instruments: str) -> None:
        moment = next(beats)
        for name in instruments:
            record = run_record(instrument=name, **TRAINING, updated_at=moment)
            library.store.write_json(record.key, record.to_json())

    with hold_library(library.store, "band", "run"):
        beat("dead", "alive")
        night = Night(*[lambda: beat("alive")] * 9)
        running: list[float] = []
        for snapshot in watch(library, library.instruments, sleep=night.sleep, clock=night.clock):
            dead, alive = snapshot.records
            assert alive.state == "running"
            if dead.state != "running":
                break
            running.append(night.now - 100.0)
    assert 8 <= running[-1] <= 12
    assert (dead.state, dead.activity) == ("waiting", None)


def test_without_a_command_at_work_nothing_runs_or_waits_for_room(tmp_path: Path) -> None:
    library = library_of(tmp_path, "tabla", "bells")
    write_record(library.store, run_record(**TRAINING))
    write_record(library.store, run_record(instrument="bells", activity="waiting", waits_for="an H100"))
    snapshot = next(watch(library, library.instruments))
    assert states(snapshot) == [("waiting", None), ("waiting", None)]
    assert not snapshot.has_ended
    assert "no command is at work" in shown(snapshot)
    plain = json.loads(CliRunner().invoke(app, ["status", str(library.path), "--json"]).stdout)
    assert [(each["activity"], each["waits_for"]) for each in plain["instruments"]] == [(None, ""), (None, "")]


def test_a_store_that_is_away_is_said_and_asked_again(tmp_path: Path) -> None:
    library = library_of(tmp_path, "tabla")
    place, aside = tmp_path / "store", tmp_path / "aside"
    write_record(library.store, run_record(**TRAINING, step=10))

    def away() -> None:
        shutil.move(place, aside)
        place.touch()  # a file where the folder was

    def back() -> None:
        place.unlink()
        shutil.move(aside, place)
        write_record(library.store, run_record(state="done"))

    night = Night(away, back)
    problems = [(s.problem != "", s.records[0].step) for s in watch(library, library.instruments, sleep=night.sleep)]
    assert problems == [(False, 10), (True, 10), (False, 0)]
    away()
    with pytest.raises(StoreError):
        next(watch(library, library.instruments))


def test_a_store_gets_at_most_twenty_requests_per_second_however_many_runs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    for name in ("read", "stat", "list"):
        original = getattr(LocalFolder, name)

        def counted(self: LocalFolder, key: str, original: Callable[[LocalFolder, str], Any] = original) -> Any:
            requests.append(key)
            return original(self, key)

        monkeypatch.setattr(LocalFolder, name, counted)
    library = library_of(tmp_path, *(f"drum-{number}" for number in range(200)))
    with hold_library(library.store, "band", "run"):
        night = Night(lambda: None, lambda: None)
        looks = watch(library, library.instruments, sleep=night.sleep, clock=night.clock)
        next(looks)
        for _ in range(2):
            requests.clear()
            next(looks)
            assert len(requests) >= 200
            assert len(requests) / night.pauses[-1] <= 20


def shown(*snapshots: Snapshot, width: int = 160) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, highlight=False, color_system=None)
    for snapshot in snapshots:
        console.print(render(snapshot, console))
    return screen.getvalue()


def test_the_table_has_everything_and_those_at_work_come_first(tmp_path: Path) -> None:
    curve = tuple((100 * n, 9.0 - n) for n in range(5))
    records = (
        run_record(instrument="gong", state="done", step=1000, validation=Validation(last=2.0)),
        run_record(instrument="bells", activity="waiting", waits_for="a GPU of type H100"),
        run_record(
            **TRAINING,
            **{"phase": 2, "step": 400, "steps_per_second": 2.0, "worker": "host-7:4711", "device": "NVIDIA H100"},
            **{"gpu_share": 0.25, "gpu_bytes": 3 << 30, "retries": 2, "curve": curve, "validation": Validation(last=5.0)},
        ),
    )
    head, titles, *rows = (
        shown(Snapshot("band", None, records, None)).splitlines()[0:2]
        + shown(Snapshot("band", None, records, None)).splitlines()[2:]
    )
    assert head.startswith("band: 1 running, 1 waiting, 1 done")
    text = "\n".join([titles, *rows])
    (tabla,) = (row for row in rows if row.startswith("tabla"))
    for part in ("training", "400 / 1,000", "5.00 █▆▅▃▁", "25 % NVIDIA H100", "host-7", "~ 5 min", " 2 ", "3.0 GiB"):
        assert part in tabla
    assert "waiting for a GPU of type H100" in text
    order = [text.index(name) for name in ("tabla", "bells", "gong")]
    assert order == sorted(order)


def test_a_curve_falls_from_left_to_right_and_flat_ones_are_flat() -> None:
    assert sparkline([(step, 100.0 - step) for step in range(0, 64)]) == "█▇▇▆▆▅▄▄▃▂▂▁"
    assert sparkline([(0, 3.0), (10, 3.0)]) == "▁▁"
    assert sparkline([(0, 3.0)]) == ""
    # Steps count, not points: half of the time nothing happens.
    assert sparkline([(0, 1.0), (600, 1.0), (700, 2.0), (800, 2.0)]) == "▁▁▁█"


def test_the_curve_of_a_record_stays_small_and_goes_back_with_a_rollback() -> None:
    record = run_record()
    for step in range(0, 1000, 10):
        record = record.model_copy(update={"curve": record.curve_with(step, float(step))})
    steps = [step for step, _ in record.curve]
    assert len(steps) <= 33
    assert steps[-1] == 990
    assert steps == sorted(steps)
    assert max(later - earlier for earlier, later in pairwise(steps)) <= 160
    assert [step for step, _ in record.curve_with(500, 1.0)][-1] == 500
    assert type(record).model_validate(json.loads(json.dumps(record.to_json()))) == record


def test_a_pipe_gets_a_line_or_a_document_per_change_and_failures_are_an_exit_code(tmp_path: Path) -> None:
    library = library_of(tmp_path, "tabla", "bells")
    write_record(library.store, run_record(state="done", model="tabla@1"))
    write_record(library.store, run_record(instrument="bells", state="failed", error=Problem(what="too short", fix="add more")))
    lines = CliRunner().invoke(app, ["status", str(library.path), "--watch"])
    assert lines.exit_code == 3
    assert lines.stdout.splitlines() == ["tabla: done", "bells: failed"]
    assert "too short" in lines.stderr
    documents = CliRunner().invoke(app, ["status", str(library.path), "--watch", "--json"])
    assert documents.exit_code == 3
    (line,) = documents.stdout.splitlines()
    plain = json.loads(CliRunner().invoke(app, ["status", str(library.path), "--json"]).stdout)
    followed = json.loads(line)
    assert followed.pop("problem") == ""
    assert followed == plain


@pytest.mark.slow
def test_on_a_terminal_there_is_a_table_until_ctrl_c(tmp_path: Path) -> None:
    library = library_of(tmp_path, "tabla")
    write_record(library.store, run_record(activity="waiting"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rave_dist", "status", str(library.path), "--watch"]
    with (
        hold_library(library.store, "band", "run"),
        subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as ran,
    ):
        os.close(theirs)
        text = ""
        while "waiting" not in text:
            text += os.read(ours, 4096).decode()
        ran.send_signal(signal.SIGINT)
        try:
            while data := os.read(ours, 4096):
                text += data.decode()
        except OSError:  # the other side of the terminal was closed
            pass
        assert ran.wait() == 130
    os.close(ours)
    assert "band: 1 waiting" in text
    assert "Stopped" not in text
    assert "Traceback" not in text
