"""Temporary folders that a later process removes when their own was killed.

::

    rave-dist-<kind>-<random>/in-use    locked while the process lives; the system releases the lock of a killed one
    rave-dist-<kind>-<random>/files/    the folder
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LOCK: Final = "in-use"
_MARK: Final = b"rave-dist\n"  # written once it is locked


@contextmanager
def temporary_folder(kind: str) -> Iterator[str]:
    """A folder for temporary files that exists while the context is open.

    Args:
        kind: the purpose, part of its name.

    Raises:
        OSError: it cannot be created.
    """
    with tempfile.TemporaryDirectory(prefix=f"rave-dist-{kind}-") as folder, open(Path(folder, _LOCK), "wb") as lock:
        with suppress(OSError):  # on some network file systems; such a folder is never found abandoned
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(_MARK)
        lock.flush()
        files = os.path.join(folder, "files")
        os.mkdir(files)
        yield files


def remove_abandoned() -> list[str]:
    """Removes the temporary folders whose processes were killed; returns their names."""
    removed = []
    for place in Path(tempfile.gettempdir()).glob(f"rave-dist-*/{_LOCK}"):
        with suppress(OSError), open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW), "rb") as lock:
            if lock.read() == _MARK and os.fstat(lock.fileno()).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place.parent)
                removed.append(place.parent.name)
    return removed
