"""The record of files and folders that are found with the recordings and not used."""

from __future__ import annotations

from rave_dist.records.base import Record


class PassedOver(Record):
    """Files and folders below the inputs that are not used, of one reason and one extension.

    Attributes:
        reason: why they are not used.
        extension: of their names, lower case with its dot; empty for folders and for names without one.
        count: their number.
        names: the first of them, with full paths.
        missing: whether they may be recordings that were meant to be used: dangling links, folders that cannot be read.
    """

    reason: str
    extension: str
    count: int
    names: tuple[str, ...]
    missing: bool = False
