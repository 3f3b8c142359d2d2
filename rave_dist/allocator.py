"""The C library's allocator: whether a process keeps freed memory for its next tensors.

glibc requests every tensor above 32 MiB from the system and returns it when it is freed, and the system clears each page
again: at RAVE's own batch of 8 that is a third of a discriminator step, and an eighth of a conversion. What needs the same
memory again keeps it, at the price of about a tenth more resident memory.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**31 - 1
_LARGEST_DYNAMIC = 32 << 20  # where glibc's own adaptation ends; it trims at twice this


def hold_freed_memory() -> bool:
    """Makes this process's allocator keep freed memory; returns whether that is supported (glibc on Linux)."""
    return _set_thresholds(_NEVER, _NEVER)


@contextmanager
def holding_freed_memory() -> Iterator[None]:
    """Keeps freed memory in the context, and returns it to the system at the end."""
    if not hold_freed_memory():
        yield
        return
    try:
        yield
    finally:
        _set_thresholds(_LARGEST_DYNAMIC, 2 * _LARGEST_DYNAMIC)
        library = _glibc()
        if library is not None:
            library.malloc_trim(0)


def _set_thresholds(mmap: int, trim: int) -> bool:
    library = _glibc()
    return library is not None and bool(library.mallopt(_MMAP_THRESHOLD, mmap)) and bool(library.mallopt(_TRIM_THRESHOLD, trim))


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return library
