"""Checks what an embedded Ray needs of this machine before it starts: Ray's own errors come late and name other causes.

Each check raises `ClusterError` with its own fix; none of them needs Ray.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

from rave_dist.errors import ClusterError

MAX_SOCKET_BYTES: Final = 107 if sys.platform == "linux" else 103
"""Longest path of a Unix socket, in bytes, without its final NUL."""

MIN_FREE_BYTES: Final = 500 * 2**20
"""Minimum free disk space for Ray's logs, sockets and spilled objects."""

MIN_MEMORY_BYTES: Final = 512 * 2**20
"""Minimum available memory; with less, Ray cannot create its object store or is soon killed."""

_LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


def temp_folder() -> Path:
    """The folder of Ray's logs and sockets: below ``RAY_TMPDIR``, ``TMPDIR`` or ``/tmp``, in this order."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    return Path(next((os.environ[name] for name in names if name in os.environ), "/tmp"))


def token_file() -> Path:
    """The file of the token of Ray's processes: ``RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token``."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def check_all() -> None:
    """Runs all checks and creates the token file.

    Raises:
        ClusterError: an embedded Ray cannot start here.
    """
    folder = temp_folder()
    check_socket_path(folder)
    check_temp_folder(folder)
    if "RAY_AUTH_TOKEN" not in os.environ:
        ensure_token(token_file())
    check_memory(available_memory())
    if port := os.environ.get("RAY_GCS_SERVER_PORT"):
        check_port(int(port))


def check_socket_path(folder: Path) -> None:
    """Refuses a folder for temporary files with a path too long for Ray's sockets."""
    excess = len(os.fsencode(folder / _LONGEST_SOCKET)) - MAX_SOCKET_BYTES
    if excess > 0:
        raise ClusterError(
            f"the path of the folder for temporary files is {excess} bytes too long for Ray's sockets",
            where=str(folder),
            fix="set RAY_TMPDIR to a folder with a short path, for example RAY_TMPDIR=/tmp",
        )


def check_temp_folder(folder: Path, *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Refuses a folder for temporary files that does not exist, cannot be written or is nearly full."""
    fix = "set RAY_TMPDIR to a folder that you can write, with space on its disk"
    if not folder.is_dir():
        raise ClusterError("the folder for temporary files does not exist", where=str(folder), fix=fix)
    place = folder / "ray" if (folder / "ray").is_dir() else folder  # may belong to another user who started Ray before
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"ok")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = (
            "the disk of the folder for temporary files is full" if full else "the folder for temporary files cannot be written"
        )
        raise ClusterError(what, where=str(place), fix=fix) from error
    free = shutil.disk_usage(place).free
    if free < min_free_bytes:
        raise ClusterError(
            f"the disk of the folder for temporary files has only {free / 2**20:.0f} MiB free; Ray needs "
            f"{min_free_bytes / 2**20:.0f} MiB",
            where=str(place),
            fix="free space there, or set RAY_TMPDIR to a folder on another disk",
        )


def ensure_token(file: Path) -> None:
    """Creates the token file if there is none, readable by its owner only.

    Raises:
        ClusterError: it cannot be created, read or protected.
    """
    try:
        with contextlib.suppress(FileExistsError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_hex(32))
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)
        empty = not file.read_text().strip()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise ClusterError(
            f"Ray's token file cannot be used ({getattr(error, 'strerror', None) or error})".replace(
                "Permission", "permission"
            ),
            where=str(file),
            fix="set HOME to a folder that you can write, or RAY_AUTH_TOKEN_PATH to a file in such a folder",
        ) from error
    if empty:
        raise ClusterError("Ray's token file is empty", where=str(file), fix="delete it; the next start makes another")


def check_port(port: int, *, host: str = "127.0.0.1") -> None:
    """Refuses a port of Ray's head that is in use; without ``RAY_GCS_SERVER_PORT`` Ray chooses a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"port {port} is in use by another program",
                where="RAY_GCS_SERVER_PORT",
                fix="unset RAY_GCS_SERVER_PORT, or set it to a free port",
            ) from error


def available_memory() -> int:
    """Available memory in bytes, including the limit of the container (cgroup 2)."""
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    return available


def check_memory(available_bytes: int) -> None:
    """Refuses a machine with too little memory left."""
    if available_bytes < MIN_MEMORY_BYTES:
        raise ClusterError(
            f"only {max(0, available_bytes) / 2**20:.0f} MiB of memory are available; "
            f"Ray needs {MIN_MEMORY_BYTES / 2**20:.0f} MiB",
            where="memory",
            fix="close other programs, give the container more memory, or use a larger machine",
        )


def shared_memory() -> int | None:
    """Free bytes of ``/dev/shm``, Ray's shared memory; None if it does not exist."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None
