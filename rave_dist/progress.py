"""The progress protocol of all commands, the Python API and the service.

The caller chooses the display: live on a terminal, lines in a pipe (`rave_dist.terminal.display`), or nothing (`SILENT`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rave_dist.records import RunRecord


class Progress(Protocol):
    """Receives the reports of one operation, in order and from one thread; its methods do not raise or block for long."""

    def stage(self, name: str) -> None:
        """Reports the start of a stage.

        Args:
            name: a short lower-case phrase, for example "starting Ray"; empty at the end.
        """

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        """Reports progress within the current stage.

        Args:
            done: number of finished units.
            total: number of all units; 0 if it is not known yet.
            unit: name of the units in the plural, for example "recordings".
            name: the instrument, if a stage has several.
        """

    def runs(self, records: Sequence[RunRecord]) -> None:
        """Reports the records of all training runs; replaces the previous report."""

    def say(self, text: str) -> None:
        """Reports an event, for example a retry, in a sentence."""


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
