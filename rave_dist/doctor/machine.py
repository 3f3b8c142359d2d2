"""Memory, disk, home, temporary files and locale."""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rave_dist.cluster import preflight
from rave_dist.doctor.diagnosis import Check, Diagnosis, Request, from_error, ok, warning
from rave_dist.errors import ClusterError

_COMFORTABLE_MEMORY_BYTES = 4 * 2**30
_COMFORTABLE_SHARED_BYTES = 2**30
_COMFORTABLE_DISK_BYTES = 5 * 2**30


def memory(request: Request) -> Iterator[Diagnosis]:
    """Memory that is available to this process."""
    available = preflight.available_memory()
    problem = _problem(lambda: preflight.check_memory(available))
    if problem is not None:
        yield from_error("memory", problem)
    elif available < _COMFORTABLE_MEMORY_BYTES:
        fix = "close other programs; training needs about 4 GiB, large configurations more (`rave-dist check` says how much)"
        yield warning("memory", f"{_size(available)} available", fix=fix)
    else:
        yield ok("memory", f"{_size(available)} available")


def shared_memory(request: Request) -> Iterator[Diagnosis]:
    """Shared memory, through which Ray passes audio between processes."""
    free = preflight.shared_memory()
    if free is None:
        yield ok("shared memory", "no /dev/shm on this system; Ray uses the disk")
    elif free < _COMFORTABLE_SHARED_BYTES:
        fix = "enlarge it (containers: --shm-size=2g), or delete files in it; without it Ray uses the disk, which is slow"
        yield warning("shared memory", f"only {_size(free)} free in /dev/shm", fix=fix)
    else:
        yield ok("shared memory", f"{_size(free)} free in /dev/shm")


def temporary_files(request: Request) -> Iterator[Diagnosis]:
    """The folder for temporary files, where Ray keeps its sockets and logs."""
    folder = preflight.temp_folder()
    for check in (preflight.check_socket_path, preflight.check_temp_folder):
        problem = _problem(lambda check=check: check(folder))  # type: ignore[misc]
        if problem is not None:
            yield from_error("temporary files", problem)
            return
    yield free_space("temporary files", folder)


def home(request: Request) -> Iterator[Diagnosis]:
    """HOME, the folder of Ray's token."""
    try:
        file = preflight.token_file()
        preflight.ensure_token(file)
    except ClusterError as problem:
        yield from_error("home", problem)
    except RuntimeError as problem:  # no HOME, and no such user
        yield from_error("home", ClusterError(str(problem), fix="set HOME to a folder that you can write"))
    else:
        yield ok("home", f"Ray's token is kept in {file}, which only you can read")


def text_encoding(request: Request) -> Iterator[Diagnosis]:
    """The locale, which determines the encoding of file names."""
    encodings = {locale.getencoding(), sys.getfilesystemencoding(), sys.stdout.encoding or "utf-8"}
    other = sorted(name for name in encodings if name.lower().replace("-", "") != "utf8")
    if other and not sys.flags.utf8_mode:
        chosen = next((name for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "no locale")
        what = f"text is {other[0]} ({chosen}={os.environ.get(chosen, '')}): file names with other characters cannot be read"
        yield warning("locale", what, fix="export LC_ALL=C.UTF-8")
    else:
        yield ok("locale", "UTF-8")


def free_space(name: str, folder: Path) -> Diagnosis:
    """Free disk space of a folder that exists or will be created."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < _COMFORTABLE_DISK_BYTES:
        fix = "free space there, or use another disk; a library needs some GiB (`rave-dist check` says how much)"
        return warning(name, f"only {_size(free)} free in {folder}", fix=fix)
    return ok(name, f"{_size(free)} free in {folder}")


def _problem(check: Callable[[], None]) -> ClusterError | None:
    try:
        check()
    except ClusterError as problem:
        return problem
    return None


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


CHECKS: Iterable[Check] = (memory, shared_memory, temporary_files, home, text_encoding)
