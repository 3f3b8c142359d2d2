"""Output of commands: results and tables on stdout, errors on stderr; with ``--json`` one JSON document on stdout."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import markup
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table

from rave_dist.errors import RaveDistError
from rave_dist.records import Engine, ModelCard, PassedOver, RunRecord, Verdict
from rave_dist.storage.probe import in_words
from rave_dist.terminal.encoding import visible
from rave_dist.time_left import TimeLeft, duration, time_left, used

if TYPE_CHECKING:
    from rave_dist.checks import LibraryCheck
    from rave_dist.doctor import Diagnosis
    from rave_dist.init_manifest.write import FirstManifest
    from rave_dist.library_stages import Ingested
    from rave_dist.maintenance.prune import Pruned
    from rave_dist.maintenance.verify import Verification
    from rave_dist.planning.night import Night

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_WIDEST = 10_000
_BOUNDS = {"about": "~", "at least": "≥", "at most": "≤"}
_STATE_STYLES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red"}
_VERDICT_STYLES = {"playable": "green", "sketch": "yellow", "no better than noise": "bold red", "silent": "bold red"}
_UNUSABLE_FIX = "give it a larger budget; if that does not help, listen to its recordings"
_DIAGNOSIS_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "skipped": "dim"}
_DIAGNOSIS_COLUMNS = (9, 17)
_NAMES_SHOWN = 3
_MUCH_DISK = 1 << 30


def escape(text: str) -> str:
    """A text as rich markup that shows every character of it."""
    return markup.escape(visible(text))


def show_table(table: Table) -> None:
    """Prints a table as wide as it needs to be: no name is shortened."""
    needed = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    Console(highlight=False, soft_wrap=True, width=max(out.width, needed)).print(table)


def document(value: dict[str, Any], *, indent: int | None = 2) -> None:
    """Prints the JSON document of a command; without indent in one line, at once."""
    as_utf_8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    json.dump(value, sys.stdout, ensure_ascii=not as_utf_8, indent=indent)
    sys.stdout.write("\n")
    sys.stdout.flush()


def error(problem: RaveDistError) -> None:
    """Prints an error: what, where and the fix."""
    where = f"{escape(problem.where)}: " if problem.where else ""
    err.print(f"[bold red]error[/] {where}{escape(problem.what)}")
    if problem.fix:
        err.print(f"  [bold]fix[/] {escape(problem.fix)}")


def failure(name: str, what: str, fix: str = "") -> None:
    """Prints one failed item of a batch."""
    err.print(f"[red]✗[/] {escape(name)}: {escape(what)}" + (f"\n    fix: {escape(fix)}" if fix else ""))


def waits(record: RunRecord) -> str:
    """What a waiting run waits for, to follow its state or activity; empty if it does not wait or the reason is not known."""
    return f" for {record.waits_for}" if record.state == "waiting" and record.waits_for else ""


def run_line(record: RunRecord) -> str:
    """A run in one line: its activity or state and, during training, its progress."""
    if record.state != "running" or record.activity not in ("training", None):
        return f"{record.instrument}: {record.activity or record.state}{waits(record)}"
    parts = [f"{record.instrument}: training, phase {record.phase}", *_pace(record)]
    if record.validation.last is not None:
        parts.append(f"held-out distance {record.validation.last:.2f}")
    return ", ".join(parts)


def _pace(record: RunRecord) -> list[str]:
    """Percent, steps per second, time spent and time left, as far as they are known."""
    share, left = used(record), time_left(record)
    return [
        *([] if share is None else [f"{100 * share:.0f} %"]),
        *([f"{record.steps_per_second:.3g} steps/s"] if record.steps_per_second else []),
        *([f"{duration(record.seconds)} elapsed"] if record.seconds else []),
        *([] if left is None else [str(left)]),
    ]


def run_table(records: Sequence[RunRecord]) -> Table:
    """A row per instrument: activity, progress and time left; empty columns are omitted."""
    table = Table(box=None, pad_edge=False)
    rows = [_run_row(record) for record in records]
    shown = [column for column in rows[0] if any(row[column] for row in rows)] if rows else []
    for column in shown:
        justify: JustifyMethod = "left" if column in ("instrument", "state", "waits for", "model", "verdict") else "right"
        table.add_column(column, justify=justify, no_wrap=column not in ("waits for", "held-out distance"))
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    return table


def _run_row(record: RunRecord) -> dict[str, str]:
    share, training = used(record), record.activity == "training"
    left = time_left(record) if training else None
    points = (record.validation.first, record.validation.best, record.validation.last)
    return {
        "instrument": escape(record.instrument),
        "state": state(record),
        "waits for": escape(record.waits_for) if record.state == "waiting" else "",
        "phase": str(record.phase),
        "step": f"{record.step:,}" if record.step and not (training and share is not None) else "",
        "done": "" if share is None or record.state == "done" else f"{100 * share:.0f} %",
        "steps/s": f"{record.steps_per_second:.3g}" if training and record.steps_per_second else "",
        "elapsed": duration(record.seconds) if training else "",
        "left": "" if left is None else estimate(left),
        # Before the first step, the best since, the last.
        "held-out distance": " → ".join("–" if v is None else f"{v:.1f}" for v in points) if any(points) else "",
        "model": escape((record.model or "").rpartition("@")[2]),
        "verdict": verdict(record.verdict),
    }


def state(record: RunRecord) -> str:
    """What a run does, or its state, with its colour, as markup."""
    return f"[{_STATE_STYLES[record.state]}]{record.activity or record.state}[/]"


def estimate(left: TimeLeft) -> str:
    """A remaining time, short."""
    return f"{_BOUNDS[left.bound]} {duration(left.seconds)}"


def verdict(found: Verdict | None) -> str:
    """A verdict in one word with its colour, as markup; empty if there is none."""
    return "" if found is None else f"[{_VERDICT_STYLES[found.word]}]{found.word}[/]"


def show_runs(records: Sequence[RunRecord]) -> None:
    """The table of runs, then their problems."""
    show_table(run_table(records))
    show_run_problems(records)


def show_run_problems(records: Sequence[RunRecord]) -> None:
    """What models lack, and the errors."""
    for record in records:
        for text in record.outdated:
            err.print(f"[yellow]–[/] {escape(record.instrument)}: {escape(text)}")
        if record.verdict and record.verdict.reasons and record.state != "running":
            if record.verdict.is_usable:
                err.print(f"[yellow]–[/] {escape(f'{record.instrument}: {record.verdict}')}")
            else:
                failure(record.instrument, str(record.verdict), _UNUSABLE_FIX)
        if record.error:
            failure(record.instrument, record.error.what, record.error.fix)


def show_checks(checks: LibraryCheck) -> None:
    """A row for each planned run, in order, then the problems."""
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
    show_table(table)
    base = checks.base
    if base is not None and base.hours is not None:
        out.print(f"{escape(base.name)} is trained first, for about {clock(3600 * base.hours)}; the others start from it")
    for c in checks.in_order:
        if (copied := c.local_disk_bytes or 0) >= _MUCH_DISK:
            out.print(f"{escape(c.name)}: training copies the dataset to its machine's disk, {in_words(copied)}")
        for warning in c.warnings:
            err.print(f"[yellow]–[/] {escape(c.name)}: {escape(warning.what)}")
        for problem in c.problems:
            failure(c.name, problem.what, problem.fix)
        show_passed_over([entry for entry in c.passed_over if not entry.missing], name=c.name)  # else a warning
    for problem in checks.warnings:
        err.print(f"[yellow]–[/] {escape(problem.what)}\n    fix: {escape(problem.fix)}")
    show_engines([checks.engine])


def show_engines(engines: Iterable[Engine]) -> None:
    """The licence terms of models, once for each engine."""
    for terms in dict.fromkeys(engine.terms for engine in engines):
        err.print(f"[dim]{escape(terms)}[/]")


def _or_dash(value: int | None, show: Callable[[int], str]) -> str:
    return "–" if value is None else show(value)


def show_first_manifest(found: FirstManifest) -> None:
    """A row per instrument, the omitted folders, and the next command."""
    table = Table(box=None, pad_edge=False)
    table.add_column("instrument")
    for column in ("recordings", "audio", "channels"):
        table.add_column(column, justify="right")
    for instrument in found.instruments:
        row = (f"{len(instrument.recordings):,}", clock(instrument.seconds), str(instrument.channels))
        table.add_row(escape(instrument.name), *row)
    show_table(table)
    for text in found.warnings:
        err.print(f"[yellow]–[/] {escape(text)}")
    out.print(f"wrote {escape(str(found.path))}; next: rave-dist check {escape(shlex.quote(str(found.path)))}")


def show_ingested(items: Sequence[Ingested]) -> None:
    """A line per dataset, then the unused seconds with reasons, the warnings about recordings, and what was passed over."""
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
        for source, what in manifest.warnings:
            err.print(f"  [yellow]–[/] {escape(source)}: {escape(what)}")
        show_passed_over(manifest.passed_over, manifest.notes, name=item.name)


def show_passed_over(passed_over: Sequence[PassedOver], notes: Sequence[str] = (), *, name: str = "") -> None:
    """A line for each kind of files and folders that are not used, with the first names, and the notes about the inputs.

    Args:
        passed_over: from the listing of the inputs.
        notes: from it too.
        name: the instrument, if it is one's.
    """
    about = f"{name}: " if name else ""
    for entry in passed_over:
        shown = ", ".join(entry.names[:_NAMES_SHOWN]) + (", …" if entry.count > _NAMES_SHOWN else "")
        kind = f"{entry.extension} " if entry.extension else ""
        err.print(f"[yellow]–[/] {escape(f'{about}{entry.count:,} {kind}not used, {entry.reason}: {shown}')}")
    for note in notes:
        err.print(f"[yellow]–[/] {escape(f'{about}{note}')}")


def show_models(cards: Sequence[ModelCard], *, latest: Collection[str]) -> None:
    """A row per published version, by name and age; the references of the latest ones are marked."""
    table = Table(box=None, pad_edge=False)
    for column in (
        "model",
        "published",
        "verdict",
        "configuration",
        "rate",
        "latents",
        "by name",
        "phase",
        "steps",
        "trained on",
        "licence",
    ):
        table.add_column(column, no_wrap=True)
    for c in cards:
        day = escape(c.created_at[:10]) + (" latest" if c.reference in latest else "")
        rate = f"{c.sample_rate} Hz × {c.channels}"
        licence = c.credit.get("licence", "")
        names = ", ".join(c.named_latents)
        facts = ("+".join(c.config), rate, str(c.latents), names, str(c.phase), f"{c.step:,}", clock(c.seconds), licence)
        table.add_row(escape(c.reference), day, verdict(c.verdict), *(escape(fact) for fact in facts))
    if cards:
        show_table(table)
    else:
        out.print("no models are published in this store yet")
    show_engines(card.engine for card in cards)


def show_verification(found: Verification) -> None:
    """A line per problem with its fix, then the counts."""
    for key, problem in sorted(found.problems.items()):
        failure(key, problem.what, problem.fix)
    read = f", {found.files_read:,} of them read ({found.bytes_read / 2**20:,.1f} MiB)" if found.files_read else ""
    count = len(found.problems)
    problems = f"{count:,} problem{'s' if count > 1 else ''}" if count else "no problems"
    out.print(f"{found.records:,} records and {found.files:,} files that they name{read}: {problems}")


def show_spent(hours: Mapping[str, float]) -> None:
    """What the training of runs took, if anything."""
    names = {"gpu_hours": "GPU-hours", "core_hours": "core-hours"}
    said = [f"{hours[key]:,.2f} {name}" for key, name in names.items() if hours[key]]
    if said:
        cost = f", {hours['cost']:,.2f} for the GPUs" if hours.get("cost") else ""
        out.print(f"training took {' and '.join(said)}{cost}")


def show_end(night: Night) -> None:
    """When all instruments of a plan have ended, and what that costs."""
    if not night.runs:
        return
    on = "on this machine" if night.card is None else f"on {night.cards} {night.card}: {night.card_hours:,.1f} card-hours"
    cost = "" if night.cost is None else f", {night.cost:,.2f} at {night.price:g} for a card and hour"
    out.print(f"training ends after about {duration(night.end)} {on}{cost}", markup=False)
    if night.card is None:
        err.print("[dim]on GPUs: add --gpu CARD; with the cost: set price in the manifest; more: rave-dist plan[/]")


def show_night(night: Night) -> None:
    """A row per instrument, then the end, the card-hours and the cost, and what makes it end in time."""
    table = Table(box=None, pad_edge=False)
    share = "CPUs" if night.card is None else f"of a {night.card}"
    for column in ("instrument", "steps", "phase 2 from", share, "starts after", "ends after", "step times"):
        table.add_column(column, justify="left" if column in ("instrument", "step times") else "right")
    for run in night.runs:
        part = f"{run.share:.0f}" if night.card is None else f"{100 * run.share:.0f} %"
        late = "red" if run.name in night.late else "none"
        ends = f"[{late}]{duration(run.end)}[/]"
        starts = duration(run.start) if run.start else "at once"
        table.add_row(escape(run.name), f"{run.steps:,}", f"{run.phase_1_steps:,}", part, starts, ends, run.source)
    out.print(table)
    show_end(night)
    if night.late:
        deadline = duration(night.deadline or 0.0)
        failure(f"{len(night.late)} of {len(night.runs)} instruments end after {deadline}", ", ".join(night.late), night.change)


def show_pruned(found: Pruned) -> None:
    """A line per item, then the totals of each kind."""
    for item in found.items:
        out.print(f"{item.kind}: {escape(item.place)}, {size(item.bytes)}")
    table = Table(box=None, pad_edge=False)
    table.add_column("removed" if found.removed else "not needed")
    for column in ("items", "objects", "size"):
        table.add_column(column, justify="right")
    for kind, (items, objects, number) in found.totals().items():
        table.add_row(kind, f"{items:,}", f"{objects:,}", size(number))
    out.print(table if found.items else "nothing to remove")
    if found.items and not found.removed:
        out.print("nothing was removed; --yes removes it")


def size(number: int) -> str:
    """Bytes in the largest unit that gives at least 1."""
    value, units = float(number), ["bytes", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} {units[0]}" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """A line of the doctor, with the fix of a problem below it; ASCII, because the locale may be the problem."""
    state, name = (text.ljust(width) for text, width in zip((diagnosis.state, diagnosis.name), _DIAGNOSIS_COLUMNS, strict=True))
    out.print(f"[{_DIAGNOSIS_STYLES[diagnosis.state]}]{state}[/]{escape(name)} {escape(diagnosis.what)}")
    if diagnosis.fix:
        out.print(f"{'':{sum(_DIAGNOSIS_COLUMNS)}} [bold]fix[/] {escape(diagnosis.fix)}")


def clock(seconds: float) -> str:
    """A duration: 229 s is 3:49.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
