"""Progress on stderr: one live display on a terminal, lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.spinner import Spinner

from rave_dist.progress import Progress
from rave_dist.records import RunRecord
from rave_dist.terminal import console
from rave_dist.time_left import TimeLeft, duration, library_time_left

LINE_SECONDS = 20.0
"""Minimum interval of lines in a pipe that report only an advance."""


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """The progress display of one command, removed from a terminal at its end."""
    if not console.err.is_terminal:
        yield Lines(console.err)
        return
    display = LiveDisplay(console.err)
    with display.live:
        yield display


class Lines:
    """Progress as lines: changes of a stage or a run at once, advances every `LINE_SECONDS`.

    Args:
        out: console of the lines.
        clock: the time in seconds.
    """

    def __init__(self, out: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._stage = ""
        self._said: dict[str, tuple[object, float]] = {}
        self._began: dict[str, tuple[int, float]] = {}  # the first count of each advance in this stage, and its time

    def stage(self, name: str) -> None:
        """One line for each new stage."""
        if name != self._stage:
            self._stage, self._began = name, {}
            if name:
                self.say(name)

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        """The first count, the last one, and some between them, which say how long the rest takes."""
        key = f"{unit} {name}"
        first, began = self._began.setdefault(key, (done, self._clock()))
        if self._due(key, (self._stage, done == total)):
            count = f"{done:,} of {total:,}" if total else f"{done:,}"
            left = f", {TimeLeft((total - done) * (self._clock() - began) / (done - first))}" if first < done < total else ""
            self.say(f"{name or self._stage}: {count} {unit}{left}")

    def runs(self, records: Sequence[RunRecord]) -> None:
        """A line for each run that changed or was not reported for a while; after a running one, the library's time left."""
        moved = False
        for record in records:
            training = record.state == "running" and record.activity == "training"
            if self._due(f"run {record.instrument}", (record.state, record.activity, record.phase), repeat=training):
                self.say(console.run_line(record))
                moved |= training
        if moved and (line := _library_line(records)):
            self.say(line)

    def say(self, text: str) -> None:
        """One line."""
        self._out.print(console.escape(text))

    def _due(self, key: str, value: object, *, repeat: bool = True) -> bool:
        said, when = self._said.get(key, (None, 0.0))
        if value == said and not (repeat and self._clock() - when > LINE_SECONDS):
            return False
        self._said[key] = (value, self._clock())
        return True


class LiveDisplay:
    """Progress on a terminal: the stage with its elapsed time, and below it bars or the table of runs."""

    def __init__(self, out: Console) -> None:
        self._spinner = Spinner("dots")
        self._stage, self._began = "", time.monotonic()
        self._bars, self._tasks = _bars(out), dict[str, TaskID]()
        self._records: Sequence[RunRecord] = ()
        self.live = Live(console=out, get_renderable=self._render, refresh_per_second=4, transient=True)

    def stage(self, name: str) -> None:
        """Starts the next stage and removes the bars and the table of the last one."""
        if name == self._stage:
            return
        self._stage, self._began, self._records = name, time.monotonic(), ()
        self._bars, self._tasks = _bars(self.live.console), {}

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        """A bar for each name and unit."""
        label = f"{name} {unit}".strip()
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(console.escape(label), total=total or None)
        self._bars.update(self._tasks[label], completed=done, total=total or None)

    def runs(self, records: Sequence[RunRecord]) -> None:
        """The table of runs."""
        self._records = records

    def say(self, text: str) -> None:
        """A line above the display, which stays."""
        self.live.console.print(console.escape(text))

    def _render(self) -> RenderableType:
        if not self._stage:
            return ""
        self._spinner.update(text=f"{console.escape(self._stage)} [dim]{duration(time.monotonic() - self._began)}[/]")
        parts: list[RenderableType] = [self._spinner]
        if self._tasks:
            parts.append(self._bars)
        if self._records:
            parts.append(console.run_table(self._records))
        if line := _library_line(self._records):
            parts.append(line)
        return Group(*parts)


def _library_line(records: Sequence[RunRecord]) -> str | None:
    """The time left for several runs together."""
    if sum(record.state in ("waiting", "running") for record in records) < 2:
        return None
    left = library_time_left(records)
    return None if left is None else f"all instruments: {left}"


def _bars(out: Console) -> Bars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Bars(*columns, console=out)
