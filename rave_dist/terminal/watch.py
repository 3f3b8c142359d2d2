"""The display of ``rave-dist status --watch``: a live table on a terminal, lines in a pipe, or JSON documents."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from rave_dist.records import RunRecord
from rave_dist.terminal import console
from rave_dist.terminal.display import Lines
from rave_dist.time_left import time_left
from rave_dist.watch import Snapshot

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 12
_NOT_A_CHANGE = ("updated_at", "beat", "seconds", "time_left", "gpu_hours", "core_hours")


def show(snapshots: Iterable[Snapshot], *, as_json: bool) -> Snapshot | None:
    """Shows snapshots as they come; returns the last one."""
    screen = console.out
    if as_json:
        return _follow(snapshots, _Documents().show)
    if not screen.is_terminal:
        lines = Lines(screen)
        return _follow(snapshots, lambda snapshot: _say(lines, snapshot))
    with Live(console=screen, auto_refresh=False, vertical_overflow="ellipsis") as live:
        return _follow(snapshots, lambda snapshot: live.update(render(snapshot, screen), refresh=True))


def _follow(snapshots: Iterable[Snapshot], show_one: Callable[[Snapshot], None]) -> Snapshot | None:
    last = None
    for last in snapshots:
        show_one(last)
    return last


class _Documents:
    """One JSON document in a line for each change."""

    def __init__(self) -> None:
        self._shown: Any = None

    def show(self, snapshot: Snapshot) -> None:
        document = snapshot.to_json()
        facts = _without_times(document)
        if facts != self._shown:
            self._shown = facts
            console.document(document, indent=None)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if name not in _NOT_A_CHANGE}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _say(lines: Lines, snapshot: Snapshot) -> None:
    lines.runs(snapshot.runs)
    lines.stage(snapshot.problem)


def render(snapshot: Snapshot, screen: Console) -> RenderableType:
    """The counts, the expected end and the table of runs, those at work first: what does not fit the screen is at its end."""
    counts = Counter(_group(record) for record in snapshot.runs)
    said = ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts, key=_ORDER.index))
    parts: list[RenderableType] = [f"{console.escape(snapshot.library)}: {said}{_end(snapshot)}"]
    if snapshot.in_use is None and not snapshot.has_ended:
        parts.append("[yellow]no command is at work on the library[/]")
    if snapshot.problem:
        parts.append(f"[yellow]{console.escape(snapshot.problem)}[/]")
    ordered = sorted(snapshot.runs, key=lambda record: _ORDER.index(_group(record)))
    return Group(*parts, _table(ordered, encoding=screen.encoding))


_ORDER = ("running", "waiting", "failed", "done")


def _group(record: RunRecord) -> str:
    return "running" if record.activity == "starting" else record.state


def _end(snapshot: Snapshot) -> str:
    left = snapshot.time_left
    if left is None:
        return ""
    now = datetime.now().astimezone()
    end = left.end(now)
    day = "" if end.date() == now.date() else f"{end:%A} "
    return f"; {left}, until {day}{end:%H:%M}"


def _table(records: Sequence[RunRecord], *, encoding: str) -> Table:
    rows = [_row(record, encoding) for record in records]
    table = Table(box=None, pad_edge=False)
    shown = [column for column in rows[0] if any(row[column] for row in rows)] if rows else []
    for column in shown:
        table.add_column(column, justify="right" if column in ("phase", "step", "left", "retries") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    return table


def _row(record: RunRecord, encoding: str) -> dict[str, str]:
    at_work, training = record.state == "running", record.activity == "training"
    left = time_left(record) if training else None
    return {
        "instrument": console.escape(record.instrument),
        "state": f"{console.state(record)}{console.escape(console.waits(record))}",
        "phase": str(record.phase) if record.step else "",
        "step": _step(record),
        "distance": _distance(record, encoding),
        "share": _share(record) if at_work else "",
        "host": console.escape((record.worker or "").rpartition(":")[0]) if at_work else "",
        "left": "" if left is None else console.estimate(left),
        "retries": str(record.retries or ""),
        "GPU memory": f"{record.gpu_bytes / 2**30:.1f} GiB" if at_work and record.gpu_bytes else "",
    }


def _step(record: RunRecord) -> str:
    if not record.step:
        return ""
    return f"{record.step:,} / {record.steps:,}" if record.steps > record.step else f"{record.step:,}"


def _share(record: RunRecord) -> str:
    each = f"{record.workers} x " if record.workers > 1 else ""
    if record.gpu_share:
        return f"{each}{100 * record.gpu_share:.0f} % {console.escape(record.device)}"
    return f"{each}{record.threads} CPU{'s' if record.threads != 1 else ''}" if record.threads else ""


def _distance(record: RunRecord, encoding: str) -> str:
    if record.validation.last is None:
        return ""
    curve = sparkline(record.curve)
    try:
        codecs.encode(curve, encoding)
    except UnicodeEncodeError:
        curve = ""
    return f"{record.validation.last:.2f} {curve}".rstrip()


def sparkline(curve: Sequence[tuple[int, float]], width: int = _CURVE_WIDTH) -> str:
    """A curve of values by step in characters of eight heights, over equal parts of its steps; empty for a single point."""
    if len(curve) < 2:
        return ""
    first, last = curve[0][0], curve[-1][0]
    columns = min(width, len(curve))
    ends = [first + (last - first) * column / (columns - 1) for column in range(columns)]
    values = [[value for step, value in curve if step <= end][-1] for end in ends]
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round(scale * (value - low))] for value in values)
