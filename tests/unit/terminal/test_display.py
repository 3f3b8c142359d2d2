"""What a person sees while a command works: lines in a pipe, one display on a terminal, and the first of it at once."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from rave_dist.options import Budget
from rave_dist.progress import SILENT, Progress
from rave_dist.records import RunRecord, Validation
from rave_dist.terminal.display import LINE_SECONDS, Lines, LiveDisplay, shown_progress
from tests.sample_records import run_record


def run(instrument: str = "drums", **fields: Any) -> RunRecord:
    return run_record(**{"instrument": instrument, "budget": Budget(steps=1000), **fields})


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(clock: Clock, screen: io.StringIO) -> Lines:
    return Lines(Console(file=screen, width=200, highlight=False), clock=clock)


def test_a_stage_is_one_line(lines: Lines, screen: io.StringIO) -> None:
    for name in ("checking", "checking", "starting Ray"):
        lines.stage(name)
    lines.say("Ray did not start within 15 s: trying again [2 of 3]")
    assert screen.getvalue().splitlines() == [
        "checking",
        "starting Ray",
        "Ray did not start within 15 s: trying again [2 of 3]",
    ]


def test_counts_are_throttled_and_the_last_one_is_said(lines: Lines, screen: io.StringIO, clock: Clock) -> None:
    lines.stage("reading recordings")
    for done in range(101):
        clock.now += 1
        lines.advance(done, 100, "recordings", name="drums")
    told = screen.getvalue().splitlines()[1:]
    assert told[0] == "drums: 0 of 100 recordings"
    assert told[-1] == "drums: 100 of 100 recordings"
    assert len(told) == 1 + 100 // (int(LINE_SECONDS) + 1) + 1
    assert told[1] == "drums: 21 of 100 recordings, about 79 s left"
    lines.advance(3, 3, "instruments")
    assert screen.getvalue().splitlines()[-1] == "reading recordings: 3 of 3 instruments"


def test_a_count_without_a_total_and_a_stage_with_another_speed(lines: Lines, screen: io.StringIO, clock: Clock) -> None:
    lines.stage("listing recordings")
    for done in (1, 2, 3):
        lines.advance(1000 * done, 0, "recordings")
        clock.now += LINE_SECONDS + 1
    lines.stage("converting")
    lines.advance(0, 3000, "recordings")
    clock.now += 600
    lines.advance(1000, 3000, "recordings")
    assert screen.getvalue().splitlines() == [
        "listing recordings",
        "listing recordings: 1,000 recordings",
        "listing recordings: 2,000 recordings",
        "listing recordings: 3,000 recordings",
        "converting",
        "converting: 0 of 3,000 recordings",
        "converting: 1,000 of 3,000 recordings, about 20 min left",
    ]


def test_a_run_is_followed_from_waiting_to_done(lines: Lines, screen: io.StringIO, clock: Clock) -> None:
    training = {"state": "running", "activity": "training", "steps": 1000}
    for record in (
        run(activity="waiting"),
        run(activity="waiting"),
        run(activity="starting"),
        run(state="running", activity="dry run"),
        run(**training, step=120, steps_per_second=3.14, seconds=130.0, validation=Validation(last=4.5)),
        run(**training, step=130, steps_per_second=3.14, seconds=133.0, validation=Validation(last=4.5)),
        run(**training, step=700, phase=2, steps_per_second=2.0, seconds=300.0),
        run(state="running", activity="exporting"),
        run(state="running", activity="measuring"),
        run(state="done"),
    ):
        clock.now += 2
        lines.runs([record])
    assert screen.getvalue().splitlines() == [
        "drums: waiting",
        "drums: starting",
        "drums: dry run",
        "drums: training, phase 1, 12 %, 3.14 steps/s, 2 min elapsed, at least 5 min left, held-out distance 4.50",
        "drums: training, phase 2, 70 %, 2 steps/s, 5 min elapsed, about 2 min left",
        "drums: exporting",
        "drums: measuring",
        "drums: done",
    ]


def test_several_runs_have_a_time_in_all(lines: Lines, screen: io.StringIO, clock: Clock) -> None:
    training = run(state="running", activity="training", budget=Budget(hours=2), seconds=3600.0)
    waiting = run("bells", activity="waiting", budget=Budget(hours=2))
    for _ in range(2 * int(LINE_SECONDS)):
        lines.runs([training, waiting])
        clock.now += 1
    told = screen.getvalue().splitlines()
    assert told[:3] == [
        "drums: training, phase 1, 50 %, 60 min elapsed, about 60 min left",
        "bells: waiting",
        "all instruments: about 3 h left",
    ]
    assert told[3:] == [told[0], told[2]], "again after a while, but not what only waits"


def test_a_terminal_shows_the_stage_its_bars_and_its_runs(screen: io.StringIO) -> None:
    console = Console(file=screen, width=100, force_terminal=True, highlight=False, color_system=None)
    display = LiveDisplay(console)

    def shown() -> str:
        screen.seek(0)
        screen.truncate()
        console.print(display.live.get_renderable())
        return screen.getvalue()

    assert shown().strip() == ""
    display.stage("reading recordings")
    display.advance(3, 12, "recordings", name="drums [left]")
    assert "reading recordings" in shown()
    assert "drums [left] recordings" in shown()
    assert "3/12" in shown()
    display.stage("training")
    assert "recordings" not in shown()
    training = {"state": "running", "activity": "training", "steps": 1000, "step": 700, "phase": 2}
    display.runs(
        [
            run(**training, steps_per_second=2.0, seconds=75.0, validation=Validation(first=9.0, best=4.0, last=5.0)),
            run("bells", state="running", activity="dry run"),
        ]
    )
    rows = [line.split() for line in shown().splitlines()]
    assert rows[1:] == [
        ["instrument", "state", "phase", "done", "steps/s", "elapsed", "left", "held-out", "distance"],
        ["drums", "training", "2", "70", "%", "2", "75", "s", "~", "2", "min", "9.0", "→", "4.0", "→", "5.0"],
        ["bells", "dry", "run", "1"],
    ]


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as progress:
        progress.stage("checking")
    assert capsys.readouterr().err == "checking\n"


def test_silence_is_a_progress_too(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = SILENT
    progress.stage("checking")
    progress.advance(1, 2, "recordings", name="drums")
    progress.runs([run()])
    progress.say("nothing")
    assert capsys.readouterr() == ("", "")


# Runs the command line with a stderr that notes what was imported when each line came, and ends it where Ray would start.
WITNESS = """
import sys
from rave_dist.__main__ import main

class Witness:
    encoding, errors = "utf-8", "strict"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        while "\\n" in self.text:
            line, _, self.text = self.text.partition("\\n")
            loaded = [name for name in ("torch", "ray", "rave", "pyarrow", "boto3") if name in sys.modules]
            print(line, *loaded, sep=",")
            if line == "starting Ray":
                started = "ray" in sys.modules and sys.modules["ray"].is_initialized()
                print("too late" if started else "in time")
                raise KeyboardInterrupt
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

sys.stderr = Witness()
main(sys.argv[1:])
"""


def test_the_first_line_comes_before_anything_heavy_is_loaded_and_ray_is_named_before_it_starts(tmp_path: Path) -> None:
    time = np.arange(20 * 44100) / 44100
    soundfile.write(tmp_path / "drums.wav", 0.3 * np.sin(2 * np.pi * 220 * time) * np.exp(-9 * (time % 0.5)), 44100)
    library = tmp_path / "band.yaml"
    library.write_text(
        "name: band\nstore: ./store\n"
        "defaults: {config: v2_tiny, window: 65536, batch: 2, budget: {steps: 4}}\n"
        "instruments: {drums: {sources: [drums.wav]}}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", WITNESS, "run", str(library)], capture_output=True, text=True, check=False, timeout=300
    )
    told = ran.stdout.splitlines()
    assert told[0] == "checking", "with nothing loaded"
    assert "in time" in told
    assert "too late" not in told
    assert ran.returncode == 130, ran.stdout + ran.stderr
