"""The end of conversions on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rave_dist.records import ConversionFolder, ConversionRecord
from rave_dist.storage.schemes import normalise
from rave_dist.storage.store import Store
from rave_dist.terminal.console import clock, escape, out


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
