"""What a person sees: progress and tables on stderr, results on stdout; one JSON document on stdout for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rave_dist.errors import RaveDistError
from rave_dist.records import Engine, ModelCard, RunRecord

if TYPE_CHECKING:
    from rave_dist.checks import LibraryCheck
    from rave_dist.pipeline import Ingested

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_STATE_STYLES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red"}
_PLAIN_REPORT_SECONDS = 20.0


def document(value: dict[str, Any]) -> None:
    """Prints the one JSON document of a command."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def error(problem: RaveDistError) -> None:
    """Prints what, where and the fix."""
    where = f"{escape(problem.where)}: " if problem.where else ""
    err.print(f"[bold red]error[/] {where}{escape(problem.what)}")
    if problem.fix:
        err.print(f"  [bold]fix[/] {escape(problem.fix)}")


def failure(name: str, what: str, fix: str = "") -> None:
    """Prints one failed item of a batch."""
    err.print(f"[red]✗[/] {escape(name)}: {escape(what)}" + (f"\n    fix: {escape(fix)}" if fix else ""))


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields the function that is told (done, total)."""
    with _bar() as progress:
        task = progress.add_task(escape(description), total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except RaveDistError:  # where nothing has begun there is no progress to leave on the screen
            if progress.tasks[0].total is None:
                progress.remove_task(task)
            raise


@contextmanager
def counting_each() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar per name; yields the function that is told (name, done, total)."""
    with _bar() as progress:
        tasks: dict[str, Any] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(escape(name), total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield tell


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err)


@contextmanager
def watching_runs() -> Iterator[Callable[[Sequence[RunRecord]], None]]:
    """A live table of runs on a terminal; elsewhere a line when a state or phase changes, and every 20 seconds."""
    if err.is_terminal:
        with Live(console=err, refresh_per_second=2) as live:
            yield lambda records: live.update(run_table(records))
        return
    told: dict[str, tuple[tuple[str, int], float]] = {}

    def tell(records: Sequence[RunRecord]) -> None:
        for record in records:
            now = (record.state, record.phase)
            before, when = told.get(record.instrument, (None, 0.0))
            moving = record.state == "running" and time.monotonic() - when > _PLAIN_REPORT_SECONDS
            if now != before or moving:
                told[record.instrument] = (now, time.monotonic())
                err.print(_run_line(record))

    yield tell


@contextmanager
def watching_library() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[Sequence[RunRecord]], None]]]:
    """Both displays of a whole run, one after the other; yields what to tell of ingest and what to tell of runs."""
    with ExitStack() as ingesting, ExitStack() as training:
        tell_ingest = ingesting.enter_context(counting_each())
        tell_runs: Callable[[Sequence[RunRecord]], None] | None = None

        def runs(records: Sequence[RunRecord]) -> None:
            nonlocal tell_runs
            if tell_runs is None:  # a terminal shows one live display at a time
                ingesting.close()
                tell_runs = training.enter_context(watching_runs())
            tell_runs(records)

        yield tell_ingest, runs


def _run_line(record: RunRecord) -> str:
    speed = f", {record.steps_per_second:.2f} steps/s" if record.steps_per_second else ""
    last = f", held-out distance {record.validation.last:.2f}" if record.validation.last is not None else ""
    return f"{record.instrument}: {record.state}, phase {record.phase}, step {record.step} of {record.steps}{last}{speed}"


def run_table(records: Sequence[RunRecord]) -> Table:
    """A row per instrument."""
    table = Table(box=None, pad_edge=False)
    for column in ("instrument", "state", "phase"):
        table.add_column(column)
    table.add_column("step", justify="right")
    table.add_column("held-out distance", justify="right")  # before the first step, the best since, the last
    table.add_column("model")
    for r in records:
        points = (r.validation.first, r.validation.best, r.validation.last)
        distance = " → ".join("–" if v is None else f"{v:.1f}" for v in points)
        state = f"[{_STATE_STYLES[r.state]}]{r.state}[/]"
        steps = f"{r.step:,} / {r.steps:,}" if r.steps else f"{r.step:,}"
        table.add_row(escape(r.instrument), state, str(r.phase), steps, distance, escape((r.model or "").rpartition("@")[2]))
    return table


def show_runs(records: Sequence[RunRecord]) -> None:
    """The table of runs, then what failed and why."""
    out.print(run_table(records))
    for record in records:
        if record.error:
            failure(record.instrument, record.error.what, record.error.fix)


def show_checks(checks: LibraryCheck) -> None:
    """A row for each of what would be trained, in the order of the work, then what is wrong."""
    table = Table(box=None, pad_edge=False)
    table.add_column("instrument")
    table.add_column("ok")
    for column in ("files", "audio", "held out", "weights", "steps", "phase 2 at", "memory"):  # what 80 columns hold
        table.add_column(column, justify="right")
    for c in checks.in_order:
        table.add_row(
            escape(c.name),
            "[green]yes[/]" if c.ok else "[red]no[/]",
            f"{c.sources:,}",
            clock(c.seconds),
            clock(c.validation_seconds),
            _or_dash(c.parameters, lambda n: f"{n / 1e6:.2f} M"),
            _or_dash(c.steps, lambda n: f"{n:,}"),
            _or_dash(c.phase_1_steps, lambda n: f"{n:,}"),
            _or_dash(c.memory_bytes, lambda n: f"{n / 2**30:.1f} GiB"),
        )
    out.print(table)
    base = checks.base
    if base is not None and base.hours is not None:
        out.print(f"{escape(base.name)} is trained first, for about {clock(3600 * base.hours)}; the others start from it")
    for c in checks.in_order:
        for warning in c.warnings:
            err.print(f"[yellow]–[/] {escape(c.name)}: {escape(warning.what)}")
        for problem in c.problems:
            failure(c.name, problem.what, problem.fix)
    show_engines([checks.engine])


def show_engines(engines: Iterable[Engine]) -> None:
    """What may be done with models, once for each engine."""
    for terms in dict.fromkeys(engine.terms for engine in engines):
        err.print(f"[dim]{escape(terms)}[/]")


def _or_dash(value: int | None, show: Callable[[int], str]) -> str:
    return "–" if value is None else show(value)


def show_ingested(items: Sequence[Ingested]) -> None:
    """A line per dataset, then the seconds that are not used and why."""
    for item in items:
        if item.error:
            failure(item.name, item.error.what, item.error.fix)
            continue
        manifest = item.manifest
        assert manifest is not None
        out.print(
            f"{escape(item.name)}: dataset {manifest.id}, {clock(manifest.used_seconds)} used of {clock(manifest.seconds)}"
        )
        for rejection in manifest.rejected:
            err.print(f"  [yellow]–[/] {escape(rejection.source)}: {rejection.seconds:.3f} s, {escape(rejection.reason)}")


def show_models(cards: Sequence[ModelCard]) -> None:
    """A row per published version."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "configuration", "rate", "latents", "phase", "steps", "trained on", "licence"):
        table.add_column(column)
    for c in cards:
        rate = f"{c.sample_rate} Hz × {c.channels}"
        licence = c.credit.get("licence", "")
        row = (c.reference, "+".join(c.config), rate, str(c.latents), str(c.phase), f"{c.step:,}", clock(c.seconds), licence)
        table.add_row(*(escape(cell) for cell in row))
    out.print(table if cards else "no models are published in this store yet")
    show_engines(card.engine for card in cards)


def clock(seconds: float) -> str:
    """Seconds as a person says them: 229 s is 3:49.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
