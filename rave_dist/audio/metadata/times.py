"""The time of a file on disk, which its derived file keeps: players and archives sort recordings by it."""

from __future__ import annotations

import os
from pathlib import Path


def keep_time(source: Path, target: Path) -> None:
    """Gives a file the modification time of another; a file system that refuses leaves its own.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    modified = os.stat(source).st_mtime_ns
    try:
        os.utime(target, ns=(modified, modified))
    except PermissionError:
        return
