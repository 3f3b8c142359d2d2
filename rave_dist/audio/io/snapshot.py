"""Notices files that are written to while they are read: a recording in progress, an upload, a synchronised folder."""

from __future__ import annotations

import os
from pathlib import Path

from rave_dist.errors import StoreError, from_os_error

_FIX = "wait until it is complete, then run the same command again"


class Snapshot:
    """The size and modification time of a local file.

    Args:
        path: of the file.

    Raises:
        OSError: it does not exist or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bytes, self._modified_ns = _state(path)

    def check(self) -> None:
        """Checks that the file is as it was.

        Raises:
            StoreError: it changed or was removed; not an `AudioError`, because what was read of it cannot be salvaged.
        """
        where = os.fsencode(self._path).decode("utf-8", "backslashreplace")
        try:
            now = _state(self._path)
        except OSError as error:
            raise from_os_error(error, where=where) from error
        if now != (self.bytes, self._modified_ns):
            raise changed(where)


def changed(where: str) -> StoreError:
    """The error for a file that is not what it was when it was listed or opened."""
    return StoreError("the file changed while it was read", where=where, fix=_FIX)


def _state(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
