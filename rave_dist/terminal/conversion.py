"""Conversions on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rave_dist.records import ConversionFolder, ConversionRecord, remarks
from rave_dist.storage.schemes import normalise
from rave_dist.storage.store import Store
from rave_dist.terminal.console import clock, err, escape, failure, out, show_passed_over


def show_conversions(records: Sequence[ConversionRecord]) -> None:
    """The failed, damaged, silent and clipped items with fixes, then the counts of each model.

    What several models have in common, such as a source that cannot be read, is printed once.
    """
    said: dict[tuple[str, str, str], list[str]] = {}
    other_formats: dict[str, str] = {}
    for record in records:
        other_formats |= {item.source: item.other_format or "" for item in record.other_format}
        for item in record.items_with_problems:
            for problem in item.problems:
                said.setdefault((item.source, problem.what, problem.fix), []).append(record.model)
    for source, reason in other_formats.items():
        err.print(f"[yellow]–[/] {escape(source)}: written as WAV, because {escape(reason)}")
    for (source, what, fix), models in said.items():
        failure(source, what if len(models) == len(records) else f"{', '.join(models)}: {what}", fix)
    passed_over = tuple(dict.fromkeys(entry for record in records for entry in record.passed_over))
    show_passed_over(passed_over, remarks(records))
    for record in records:
        counts = (("salvaged", record.salvaged), ("silent", record.silent), ("clipped", record.clipped))
        found = "".join(f", {len(items)} {name}" for name, items in counts if items)
        found += f", {record.out_of_depth} out of the model's depth" if record.out_of_depth else ""
        out.print(
            f"{record.model}: {record.converted} converted ({clock(record.seconds)}), "
            f"{record.skipped} skipped, {len(record.failed)} failed{found}"
        )
        if kept := record.preserved.in_words:
            out.print(f"{record.model} keeps, in the median: {kept}")


def show_conversions_end(
    records: Sequence[ConversionRecord], *, took: float, store: Store, page: str | Path | None = None
) -> None:
    """Hours of audio, the time that they took, and where journals and page are.

    Args:
        records: of the conversions, one per model.
        took: seconds of the command.
        store: with the journals.
        page: of the conversions, if one was written.
    """
    seconds = sum(record.seconds for record in records)
    speed = f", {seconds / took:,.1f} times real time" if seconds >= 1 and took > 0 else ""
    out.print(f"{seconds / 3600:,.2f} hours of audio in {clock(took)}{speed}")
    for record in records:
        out.print(f"journal: {escape(store.address(ConversionFolder.of(record.id).table))}")
    if page is not None:
        out.print(f"page: {escape(normalise(str(page)))}")
