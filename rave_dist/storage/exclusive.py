"""Exclusive creation of files, on file systems with and without hard links."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
"""The name of a folder's lock, an empty file that stays; only where hard links are not supported."""

# exFAT, FAT and most FUSE file systems; SMB and 9p; sandboxes.
_NO_HARD_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EMLINK,
    errno.EXDEV,
}


def rename_exclusively(temporary: Path, place: Path) -> bool:
    """Gives a complete file its name, unless something has that name; True for exactly one of several concurrent callers.

    A hard link cannot be created where a name exists. Without hard links, one caller at a time looks for the name and renames
    its file, holding a lock that the system releases when its holder ends. Whenever a caller dies, the name either does not
    exist or has the complete content. ``temporary`` may still exist afterwards.

    Raises:
        OSError: the file cannot be renamed.
    """
    try:
        os.link(temporary, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        return True
    with _locked(place.parent):
        if os.path.lexists(place):
            return False
        os.rename(temporary, place)
        return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, whose file is never removed: a caller could hold the lock of a removed file."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
