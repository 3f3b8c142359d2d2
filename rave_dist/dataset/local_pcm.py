"""The audio of a dataset on this machine's disk: one file of 16-bit PCM, from which any part is read when it is needed.

::

    <cache>/pcm/<id>             the segments in order, each planar [channels, samples]
    <cache>/pcm/<id>.partial     the same while it is written

The id is the hash of the content, so all runs of a machine that train on the same audio share one file, and the
store is read once for all of them. The memory of a process does not depend on the file's size: pages that were read belong to
the system, which takes them back when it needs memory. Parts are read, not mapped: a window is one request to the disk per
channel, and an error of the disk is an exception, not the end of the process.

A file has its name when it is complete. Its writer holds an exclusive lock, its readers a shared one; the system releases them
when a process ends, however it ends. An unlocked file is the remains of a killed writer, or kept for later runs, the last used
up to `KEPT_BYTES`, fewer if the disk is full. A file that is removed while it is open stays readable.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rave_dist import isolated
from rave_dist.audio.types import Pcm16
from rave_dist.errors import StoreError, from_os_error, is_disk_full
from rave_dist.storage.cache import cache_folder
from rave_dist.storage.probe import in_words

KEPT_BYTES = 10 << 30
"""Files that no process uses are kept for later runs up to this size in total."""

_PARTIAL = ".partial"
_WIDTH = 2  # bytes per sample
_POLL_SECONDS = 0.2

Put = Callable[[int, int, Pcm16], None]
"""Takes audio of a segment: its number, the position in it, and int16 [channels, samples]."""


def open_pcm(
    pcm_id: str, shapes: Sequence[tuple[int, int]], fill: Callable[[Put], None], *, stop: Callable[[], bool] = lambda: False
) -> list[StoredPcm]:
    """The segments of a file, which is written first unless this machine has it; waits while another process writes it.

    Args:
        pcm_id: the hash of the content.
        shapes: channels and samples of each segment.
        fill: gives all audio of the segments to its argument.
        stop: called again and again while the file is written, by this process or another one.

    Raises:
        StoreError: the cache cannot be written, or its disk is full.
        isolated.Stopped: ``stop`` returned True.
    """
    sizes = [_WIDTH * channels * samples for channels, samples in shapes]
    offsets = np.cumsum([0, *sizes]).tolist()

    def write(descriptor: int) -> None:
        with os.fdopen(descriptor, "r+b", closefd=False) as file:

            def put(index: int, place: int, pcm: Pcm16) -> None:
                _raise_if(stop)
                for channel, row in enumerate(np.ascontiguousarray(pcm, "<i2")):
                    file.seek(offsets[index] + _WIDTH * (channel * shapes[index][1] + place))
                    file.write(row.data)

            fill(put)

    folder = pcm_folder()
    try:
        file = _File(folder / pcm_id, _open(folder / pcm_id, offsets[-1], write, stop))
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        known = _disk_full(folder, offsets[-1]) if is_disk_full(error) else from_os_error(error, where=str(folder))
        raise known from error
    return [StoredPcm(file, offset, shape[1], shape) for offset, shape in zip(offsets, shapes, strict=False)]


def pcm_folder() -> Path:
    """The folder of the files: in the user's cache, or where that cannot be written, in the folder of temporary files."""
    temporary = Path(tempfile.gettempdir()) / f"rave-dist-{os.getuid()}"
    for place in filter(None, (cache_folder(), temporary)):
        with suppress(OSError):
            (place / "pcm").mkdir(parents=True, exist_ok=True)
            if os.access(place / "pcm", os.W_OK):
                break
    return place / "pcm"


@dataclass(frozen=True)
class StoredPcm:
    """PCM in a file, int16 ``[channels, samples]``: a slice of samples costs nothing, ``np.asarray`` reads.

    Attributes:
        file: the file.
        offset: place of the first sample in it, in bytes.
        stride: samples from a channel to the next.
        shape: channels and samples.
    """

    file: _File
    offset: int
    stride: int
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return _WIDTH * self.shape[0] * self.shape[1]

    def __getitem__(self, key: tuple[slice, slice], /) -> StoredPcm:
        """A part, ``[:, start:stop]``."""
        first, last, _ = key[1].indices(self.shape[1])
        return replace(self, offset=self.offset + _WIDTH * first, shape=(self.shape[0], max(0, last - first)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.int16]:
        """The samples.

        Raises:
            StoreError: the disk has an error, or the file was cut.
        """
        samples = np.empty(self.shape, "<i2")
        for channel, row in enumerate(samples if samples.size else ()):
            self.file.read_into(row, self.offset + _WIDTH * channel * self.stride)
        return samples if dtype is None else samples.astype(dtype, copy=False)


class _File:
    """An open, locked file, which is closed with its last user."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        if hasattr(os, "posix_fadvise"):  # reading ahead of windows from anywhere is in vain
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        weakref.finalize(self, _close, descriptor, path.parent)

    def read_into(self, row: Pcm16, offset: int) -> None:
        """Reads samples from a place in bytes."""
        rest = row.data.cast("B")
        try:
            while rest:
                count = os.preadv(self._descriptor, [rest], offset)
                if not count:
                    raise StoreError("this copy of a dataset was cut", where=str(self._path), fix="delete it, and run again")
                rest, offset = rest[count:], offset + count
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise from_os_error(error, where=str(self._path)) from error


def _close(descriptor: int, folder: Path) -> None:
    os.close(descriptor)
    with suppress(OSError):
        _remove_unused(folder, keep=KEPT_BYTES)


def _open(path: Path, size: int, write: Callable[[int], None], stop: Callable[[], bool]) -> int:
    """A descriptor of the complete file with a shared lock."""
    partial = path.with_name(path.name + _PARTIAL)
    while True:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_size == size:
                with suppress(PermissionError):  # of another user, with whom the cache is shared
                    os.utime(descriptor)  # its last use
                return descriptor
            path.unlink(missing_ok=True)
            os.close(descriptor)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _lock(descriptor, stop)
        if not _has_name(descriptor, partial):  # the process that held the lock has renamed or removed it
            os.close(descriptor)
            continue
        try:
            if path.exists():  # complete since it was looked for
                continue
            _reserve(descriptor, path.parent, size)
            write(descriptor)
            os.fsync(descriptor)  # after a power failure, a file that was only renamed may be empty
            os.replace(partial, path)
            return os.dup(descriptor)  # with the same lock
        finally:
            if _has_name(descriptor, partial):
                partial.unlink()
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.close(descriptor)


def _lock(descriptor: int, stop: Callable[[], bool]) -> None:
    """Waits for the exclusive lock of a file, which it closes if it is asked to stop before."""
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            _raise_if(stop)
        except isolated.Stopped:
            os.close(descriptor)
            raise
        time.sleep(_POLL_SECONDS)


def _raise_if(stop: Callable[[], bool]) -> None:
    if stop():
        raise isolated.Stopped


def _reserve(descriptor: int, folder: Path, size: int) -> None:
    os.ftruncate(descriptor, 0)
    _remove_unused(folder, keep=KEPT_BYTES)
    if shutil.disk_usage(folder).free < size:
        _remove_unused(folder, keep=0)
    if shutil.disk_usage(folder).free < size:
        raise _disk_full(folder, size)
    if hasattr(os, "posix_fallocate"):  # so that processes that write other files at the same time see it
        os.posix_fallocate(descriptor, 0, size)


def _disk_full(folder: Path, size: int) -> StoreError:
    return StoreError(
        f"training needs {in_words(size)} of this machine's disk for a copy of the dataset,"
        f" but {in_words(shutil.disk_usage(folder).free)} are free",
        where=str(folder),
        fix="free space on that disk, or set RAVE_DIST_CACHE to a folder on a larger one",
    )


def _remove_unused(folder: Path, *, keep: int) -> None:
    """Removes files that no process uses: remains of killed writers, and all but the last used of ``keep`` bytes."""
    for path in sorted(folder.iterdir(), key=_last_use, reverse=True):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                keep -= os.fstat(descriptor).st_size
                if (path.suffix == _PARTIAL or keep < 0) and _has_name(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)


def _last_use(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _has_name(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
