"""The tree of errors.

Every error has *what* is wrong, *where*, and the smallest *fix*; the command line prints only these three.

::

    RaveDistError
    ├── LibraryError        (ValueError)   the manifest, or a file that it names
    │   └── WrongPackageError              a package of recordings differs from its description
    ├── StoreError          (OSError)      the store cannot be reached, read or written
    │   ├── StoreUnavailableError          the server does not respond; a later attempt may succeed
    │   ├── MissingKeyError (KeyError)     nothing is stored under that key
    │   └── DamagedObjectError             an object is not what its stage writes, for example cut
    ├── AudioError          (ValueError)   a recording cannot be decoded or differs from its headers
    ├── DatasetError        (ValueError)   a dataset is missing, empty or too small
    ├── ConfigurationError  (ValueError)   an impossible RAVE configuration, override, window or batch
    │   └── MisfitError                    configurations or overrides that cannot be combined
    ├── TrainingError       (RuntimeError) a run failed: out of memory, lost its checkpoints
    │   ├── NotFiniteError                 a loss or a weight is NaN or infinite
    │   └── InsufficientMemoryError        a training step does not fit the memory
    ├── ModelNotFoundError  (LookupError)  no such model or version in the registry
    ├── VerificationError   (RuntimeError) an export differs from its model
    ├── UntrustedModelError (RuntimeError) a model file has operators that no export has
    ├── ConversionError     (ValueError)   a conversion cannot start: OUTPUT inside INPUT, no inputs
    ├── ClusterError        (RuntimeError) Ray cannot be reached or lacks resources
    ├── RequestError        (ValueError)   an invalid request to the service
    │   └── LimitError                     a request beyond the limits of the service
    ├── InUseError          (RuntimeError) another command is at work on the library or the store
    └── BusyError           (RuntimeError) the service has too many requests
"""

from __future__ import annotations

import errno
import tempfile

_FULL = (errno.ENOSPC, errno.EDQUOT)


class RaveDistError(Exception):
    """Base of all errors that are shown to users.

    Args:
        what: the problem, in one sentence.
        where: the file, key, line or name concerned; may be empty.
        fix: the smallest change that solves it; may be empty.

    Example:
        >>> try:
        ...     rd.Library.load("libary.yaml")
        ... except rd.RaveDistError as error:
        ...     print(f"{error.where}: {error.what}. {error.fix}")
        libary.yaml: there is no such file. check the path of the library manifest
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        return f"{message}\n  fix: {self.fix}" if self.fix else message

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are pickled between Ray processes: keyword arguments need a constructor function.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[RaveDistError], what: str, where: str, fix: str) -> RaveDistError:
    return kind(what, where=where, fix=fix)


class LibraryError(RaveDistError, ValueError):
    """The library manifest, or a file that it names, is wrong."""


class WrongPackageError(LibraryError):
    """A package of recordings differs from its description."""


class StoreError(RaveDistError, OSError):
    """The store cannot be reached, read or written."""


class StoreUnavailableError(StoreError):
    """The server of the store does not respond or cannot answer now; a later attempt may succeed."""


class MissingKeyError(StoreError, KeyError):
    """Nothing is stored under a key."""


class DamagedObjectError(StoreError):
    """A stored object is not what its stage writes: cut, changed, or of another version."""


class AudioError(RaveDistError, ValueError):
    """A recording cannot be decoded or differs from its headers."""


class DatasetError(RaveDistError, ValueError):
    """A dataset is missing, empty or too small."""


class ConfigurationError(RaveDistError, ValueError):
    """An impossible RAVE configuration, override, window or batch."""


class MisfitError(ConfigurationError):
    """Configurations or overrides that cannot be combined, with RAVE's message."""


class TrainingError(RaveDistError, RuntimeError):
    """A training run failed."""


class NotFiniteError(TrainingError):
    """A loss, a weight or a held-out distance of a run is NaN or infinite."""


class InsufficientMemoryError(TrainingError):
    """A training step does not fit the memory of its device, or of the device's part that the run may use."""


class ModelNotFoundError(RaveDistError, LookupError):
    """The registry has no such model or version."""


class VerificationError(RaveDistError, RuntimeError):
    """An exported model differs from the trained model."""


class UntrustedModelError(RaveDistError, RuntimeError):
    """A model file has operators that no export of this program has."""


class ConversionError(RaveDistError, ValueError):
    """A conversion cannot start."""


class ClusterError(RaveDistError, RuntimeError):
    """Ray cannot be reached or lacks resources."""


class InUseError(RaveDistError, RuntimeError):
    """Another command is at work on the library or the store."""


class RequestError(RaveDistError, ValueError):
    """An invalid request to the service."""


class LimitError(RequestError):
    """A request beyond the limits of the service."""


class BusyError(RaveDistError, RuntimeError):
    """The service has too many requests; a later one may succeed."""


def from_os_error(error: OSError, *, where: str) -> StoreError:
    """Converts an operating-system error to one with a fix.

    Args:
        error: the system's error.
        where: the path or address in use.
    """
    if error.errno in _FULL:
        return StoreError("the disk is full", where=where, fix="free space on that disk, or choose a folder on a larger one")
    if error.errno == errno.EROFS:
        return StoreError(
            "the disk is read-only", where=where, fix="mount it with write access, or choose a folder on another disk"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(
            "no permission to use this path", where=where, fix="give your user read and write access, or choose another"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StoreError("a file exists where a folder is needed", where=where, fix="move the file or choose another path")
    if error.errno == errno.EISDIR:
        return StoreError("a folder has this name", where=where, fix="move the folder or choose another path")
    if error.errno == errno.ENOENT:
        return StoreError("there is no such file or folder", where=where, fix="check the path, or create its folder")
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(
            "the name or path is too long for this disk", where=where, fix="shorten the file's name, or choose a shorter path"
        )
    if error.errno == errno.EILSEQ:
        return impossible_name(where)
    return StoreError(error.strerror or str(error), where=where, fix="check the disk and run the same command again")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, says that a disk or a quota is full.

    Args:
        error: any.
    """
    full = isinstance(error, OSError) and error.errno in _FULL
    return full or (error is not None and is_disk_full(error.__cause__))


def known_error(error: BaseException) -> RaveDistError | None:
    """An error that people can read: itself, or that of a full or read-only disk, as temporary files raise it; otherwise None.

    Args:
        error: any; torch's writer of files hides the system's error.
    """
    if isinstance(error, RaveDistError):
        return error
    if isinstance(error, RuntimeError) and "inline_container" in str(error) and "Reader" not in str(error):
        error = OSError(errno.ENOSPC, "")
    if not isinstance(error, OSError) or error.errno not in (*_FULL, errno.EROFS):
        return None
    folder = tempfile.tempdir or "/tmp"
    where = str(error.filename or folder)
    if not where.startswith(folder):
        return from_os_error(error, where=where)
    what = from_os_error(error, where=folder).what
    return StoreError(what, where=folder, fix="free space there, or set TMPDIR to a folder on another disk")


def impossible_name(where: str) -> StoreError:
    """The error of a name that a file system refuses.

    Args:
        where: the path.
    """
    return StoreError(
        "a file of this name cannot be created here",
        where=where,
        fix='choose a shorter name without : * ? " < > | and \\, or another disk or folder',
    )
