"""Atomic writing of files and folders: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# At most 16 bytes longer than the name, because file systems limit a name to 255 bytes. Hidden, so that listings of
# recordings or results do not contain them.
_FORM = ".{name}.partial-{unique}"
_TEMPORARY = re.compile(r"\..*\.partial-[0-9a-f]{6}", re.DOTALL)


def temporary_path(place: Path) -> Path:
    """A new unique path in the folder of `place`, to be renamed to it; its name is at most 16 bytes longer."""
    return place.with_name(_FORM.format(name=place.name, unique=uuid.uuid4().hex[:6]))


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `temporary_path` makes."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Yields a temporary path; its file replaces `place` if the context succeeds, and is removed otherwise.

    The folder of `place` must exist.

    Raises:
        OSError: the file cannot be renamed.
    """
    temporary = temporary_path(place)
    try:
        yield temporary
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(place: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder created in the context; an existing one is removed just before the rename.

    Raises:
        OSError: the folder cannot be removed or renamed.
    """
    temporary = temporary_path(place)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if place.exists():
            shutil.rmtree(place)
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(place: Path) -> None:
    """Removes temporary files of killed processes; only safe if no other process is writing the same file.

    Raises:
        OSError: the folder cannot be read, or a file not removed.
    """
    start = f".{place.name}.partial-"
    for entry in os.scandir(place.parent):
        if entry.name.startswith(start) and is_temporary(entry.name):
            os.unlink(entry.path)
