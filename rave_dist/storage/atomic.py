"""Atomic writing of files and folders: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from rave_dist.errors import StoreError, impossible_name

# Short and independent of the final name: file systems limit a name to 255 bytes, and the final one may use all of them.
# Hidden, so that listings of recordings or results do not contain them.
_FORM = ".partial-{id}"
_ID_LENGTH = 12
_TEMPORARY = re.compile(r"\.partial-[0-9a-f]{12}")


def temporary_path(place: Path) -> Path:
    """A new unique path in the folder of `place`, to be renamed to it; its name has 21 bytes."""
    return place.with_name(_FORM.format(id=uuid.uuid4().hex[:_ID_LENGTH]))


def is_temporary(name: str) -> bool:
    """Whether a file name is one of a temporary file."""
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


@contextmanager
def replacing_alone(place: Path) -> Iterator[FileIO]:
    """Like `replacing`, for large files with one writer: yields a new file, which is open for reading and writing.

    Its temporary name follows from the name of `place`, so that the file of a killed writer is found, and replaced, without
    listing the folder. Of two writers, the second succeeds.

    Raises:
        OSError: the folder of `place` cannot be written.
        StoreError: another process has begun to write the same file, or the file system refuses the name.
    """
    temporary = place.with_name(_FORM.format(id=hashlib.sha256(os.fsencode(place.name)).hexdigest()[:_ID_LENGTH]))
    temporary.unlink(missing_ok=True)
    with open(temporary, "x+b", buffering=0) as file:
        try:
            yield file
            if not _is_open_file(temporary, file):
                raise StoreError(
                    "another process is writing this file", where=str(place), fix="let one of the two commands end first"
                )
            try:
                os.replace(temporary, place)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):  # what exFAT and SMB answer to a name that they refuse
                    raise impossible_name(str(place)) from error
                raise
        finally:
            if _is_open_file(temporary, file):
                temporary.unlink()


def _is_open_file(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
