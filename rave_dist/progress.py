"""How an operation reports its progress: one protocol for all commands, for the Python API and for the service.

What a report looks like is decided by whoever starts the operation: a live display on a terminal, lines in a pipe
(`rave_dist.display`), nothing (`SILENT`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rave_dist.records import RunRecord


class Progress(Protocol):
    """Receives the reports of one operation, in order and from one thread; a report never raises and never blocks for long."""

    def stage(self, name: str) -> None:
        """Reports what happens from now on.

        Args:
            name: a short lower-case phrase, such as "checking" or "starting Ray"; empty when there is nothing to wait for.
        """

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        """Reports how much of the current stage is done.

        Args:
            done: units done.
            total: units in all.
            unit: what is counted, in the plural, such as "recordings".
            name: the instrument concerned, where a stage has several.
        """

    def runs(self, records: Sequence[RunRecord]) -> None:
        """Reports the records of all training runs; replaces the report before it."""

    def say(self, text: str) -> None:
        """Reports one event in a sentence, such as a retry."""


class Silent:
    """Ignores all reports."""

    def stage(self, name: str) -> None:
        """Ignored."""

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        """Ignored."""

    def runs(self, records: Sequence[RunRecord]) -> None:
        """Ignored."""

    def say(self, text: str) -> None:
        """Ignored."""


SILENT: Progress = Silent()
"""The default wherever progress may be given."""
