"""Other people's disks: a real exFAT on a loop device, and a kernel that refuses hard links."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LINK_CALLS = {"x86_64": (86, 265), "aarch64": (37,)}  # link and linkat


def forbid_hard_links(error: int = errno.EPERM) -> None:
    """Makes the kernel refuse link() in this process and its children, as exFAT, FAT and SMB do."""
    calls = _LINK_CALLS[platform.machine()]
    jumps = [(_JUMP_IF_EQUAL, len(calls) - 1 - index, 0, number) for index, number in enumerate(calls)]
    last = (_JUMP_IF_EQUAL, 0, 1, calls[-1])
    program = [(_LOAD, 0, 0, 0), *jumps[:-1], last, (_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    made = Program(len(program), ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(made), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel does not install the filter")


def missing_for_exfat() -> str:
    """What this machine lacks to mount exFAT; empty if nothing."""
    programs = [name for name in ("mkfs.exfat", "mount.exfat-fuse", "losetup") if _program(name) is None]
    if programs:
        return f"these programs are not installed: {', '.join(programs)} (Debian: exfatprogs, exfat-fuse)"
    return "" if os.geteuid() == 0 and os.path.exists("/dev/fuse") else "mounting needs root and /dev/fuse"


@lru_cache
def can_mount_memory() -> bool:
    """Whether a small disk in memory can be mounted, to be filled."""
    if os.geteuid() != 0 or _program("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as place:
        try:
            mount_memory(Path(place), 1 << 20)
        except subprocess.CalledProcessError:  # a container without the right
            return False
        unmount(Path(place))
        return True


def mount_memory(place: Path, size_bytes: int) -> None:
    """Mounts a disk in memory on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tests", str(place)], check=True, capture_output=True)


def unmount(place: Path) -> None:
    """Unmounts a folder at once; what is open there lives on until it is closed."""
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def exfat(folder: Path, megabytes: int = 64) -> Iterator[Path]:
    """A mounted exFAT of its own: names without case, no links, no modes, times of two seconds."""
    image, place = folder / "exfat.img", folder / "exfat"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.exfat", str(image))
    device = _run("losetup", "-f", "--show", str(image))
    try:
        _run("mount.exfat-fuse", device, str(place))
        try:
            yield place
        finally:
            _run("umount", str(place))
    finally:
        _run("losetup", "-d", device)


@contextmanager
def tmpfs(folder: Path, megabytes: int = 1) -> Iterator[Path]:
    """A disk of a given size, of its own; skips where it cannot be mounted."""
    if not can_mount_memory():
        pytest.skip("a small disk needs root and the right to mount a tmpfs")
    place = folder / "disk"
    place.mkdir()
    mount_memory(place, megabytes << 20)
    try:
        yield place
    finally:
        unmount(place)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _run(name: str, *arguments: str) -> str:
    found = _program(name)
    assert found is not None, name
    return subprocess.run([found, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without root's rights, for which modes of files do not count."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
