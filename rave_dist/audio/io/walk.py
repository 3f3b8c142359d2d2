"""Walks folders for recordings; whatever is not one is named with the reason."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from rave_dist.audio.io.decoders import UNSUPPORTED_EXTENSIONS, decoder_for, is_builtin
from rave_dist.audio.io.patterns import Glob
from rave_dist.records.passed_over import PassedOver

HIDDEN = "hidden"
SYSTEM = "made by the operating system or a disk station"
NOT_AUDIO = "not an audio extension"
UNSUPPORTED = "an audio format that is not supported: convert it to WAV"
NOT_A_FILE = "a FIFO, socket or device"
DANGLING = "a link to a missing file"
GONE = "removed while its folder was listed"
FOLDER = "a folder, which the pattern does not enter"

_SYSTEM_FOLDERS = frozenset(
    {"#recycle", "#snapshot", "@eadir", "@recycle", "@tmp"}  # of disk stations
    | {"$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx"}
)
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_EXTENSION = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,10}")
_NAMES_KEPT = {False: 3, True: 100}


@dataclass(frozen=True)
class Passed:
    """A file or folder that is not used; ``missing`` as in `PassedOver`."""

    path: str
    reason: str
    is_folder: bool = False
    missing: bool = False

    @property
    def extension(self) -> str:
        """The extension of a file's name, lower case with its dot; empty where it is none that names a kind of file."""
        extension = "" if self.is_folder else PurePosixPath(self.path).suffix.lower()
        return extension if _EXTENSION.fullmatch(extension) else ""


def is_audio_name(path: str) -> bool:
    """Whether a relative path looks like a recording: an audio extension, and no part of it hidden or the system's."""
    return why_not_audio(path) is None


def why_not_audio(path: str) -> str | None:
    """Why a relative path does not look like a recording; None if it does."""
    *folders, name = path.split("/")
    for folder in folders:
        if reason := why_not_entered(folder):
            return reason
    if name.startswith("."):
        return HIDDEN
    if name.lower() in _SYSTEM_FILES:
        return SYSTEM
    pure = PurePosixPath(name)
    if is_builtin(pure) or decoder_for(pure) is not None:
        return None
    return UNSUPPORTED if pure.suffix.lower() in UNSUPPORTED_EXTENSIONS else NOT_AUDIO


def why_not_entered(folder: str) -> str | None:
    """Why a folder of this name is passed over; None if it is entered."""
    if folder.startswith("."):
        return HIDDEN
    return SYSTEM if folder.lower() in _SYSTEM_FOLDERS else None


def recordings_below(folder: str, glob: Glob | None = None) -> Iterator[tuple[str, os.stat_result] | Passed]:
    """The recordings below a folder with their status, and whatever is not used; linked folders are entered once.

    Args:
        folder: its path.
        glob: only what this glob matches, relative to the folder; None for everything.

    Raises:
        OSError: the folder itself cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if place == folder:
                raise
            yield _unreadable(place, error, is_folder=True)
            continue
        below: list[str] = []
        for entry in entries:
            found = _judge(entry, entry.path[len(folder) :].lstrip("/"), glob)
            if isinstance(found, str):
                below.append(found)
            elif found is not None:
                yield found
        waiting += reversed(below)


def _judge(entry: os.DirEntry[str], relative: str, glob: Glob | None) -> str | tuple[str, os.stat_result] | Passed | None:
    """A folder to enter, a recording, something that is not used, or None for what the glob does not match."""
    try:
        if entry.is_dir():
            reason = why_not_entered(entry.name)
            if glob is not None and not glob.enters(relative):
                return Passed(entry.path, reason or FOLDER, is_folder=True) if glob.matches(relative) else None
            return entry.path if reason is None else Passed(entry.path, reason, is_folder=True)
        if glob is not None and not glob.matches(relative):
            return None
        return judge_file(entry.path, why_not_audio(entry.name), entry.stat() if entry.is_file() else None)
    except OSError as error:
        return _unreadable(entry.path, error, is_folder=False)


def judge_file(path: str, reason: str | None, status: os.stat_result | None) -> tuple[str, os.stat_result] | Passed:
    """A recording or something that is not used.

    Args:
        path: of a file.
        reason: why its name is not that of a recording, if so.
        status: of the file, if it is known to be a regular one.

    Raises:
        OSError: its status cannot be read.
    """
    if reason in (HIDDEN, SYSTEM):
        return Passed(path, reason)
    if status is None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return Passed(path, DANGLING if os.path.islink(path) else GONE, missing=reason is None)
    if not stat.S_ISREG(status.st_mode):
        return Passed(path, NOT_A_FILE)
    return (path, status) if reason is None else Passed(path, reason)


def _unreadable(path: str, error: OSError, *, is_folder: bool) -> Passed:
    kind = "folder" if is_folder else "file"
    missing = is_folder or why_not_audio(os.path.basename(path)) is None
    return Passed(path, f"a {kind} that cannot be read: {error.strerror}", is_folder=is_folder, missing=missing)


class Tally:
    """Counts what is passed over per reason and extension, and keeps the first names of each."""

    def __init__(self) -> None:
        self._groups: dict[tuple[bool, str, str], list[str]] = {}
        self._counts: Counter[tuple[bool, str, str]] = Counter()

    def add(self, passed: Passed) -> None:
        """Counts a file or folder."""
        group = (not passed.missing, passed.reason, passed.extension)
        self._counts[group] += 1
        if self._counts[group] <= _NAMES_KEPT[passed.missing]:
            self._groups.setdefault(group, []).append(printable(passed.path))

    def entries(self) -> tuple[PassedOver, ...]:
        """The counts; those that may be missing recordings first."""
        return tuple(
            PassedOver(
                reason=reason,
                extension=extension,
                count=self._counts[present, reason, extension],
                names=tuple(names),
                missing=not present,
            )
            for (present, reason, extension), names in sorted(self._groups.items())
        )


def printable(path: str) -> str:
    r"""A path as valid UTF-8; other bytes become ``\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
