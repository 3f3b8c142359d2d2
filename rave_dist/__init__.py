"""Trains a library of RAVE models from recordings, and converts archives with them.

The public names are in ``__all__`` and described in docs/api.md. They are loaded on first use, so the import is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rave_dist.api import (
        check,
        find_model,
        ingest,
        list_models,
        prune,
        publish,
        report,
        run,
        status,
        train,
        verify,
    )
    from rave_dist.archives.api import convert
    from rave_dist.conversion.convert import Converter
    from rave_dist.errors import (
        AudioError,
        BusyError,
        ClusterError,
        ConfigurationError,
        ConversionError,
        DamagedObjectError,
        DatasetError,
        InsufficientMemoryError,
        InUseError,
        LibraryError,
        LimitError,
        MisfitError,
        MissingKeyError,
        ModelNotFoundError,
        NotFiniteError,
        RaveDistError,
        RequestError,
        StoreError,
        StoreUnavailableError,
        TrainingError,
        UntrustedModelError,
        VerificationError,
        WrongPackageError,
    )
    from rave_dist.storage.store import Store
    from rave_dist.views import Library

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "BusyError",
    "ClusterError",
    "ConfigurationError",
    "ConversionError",
    "Converter",
    "DamagedObjectError",
    "DatasetError",
    "InUseError",
    "InsufficientMemoryError",
    "Library",
    "LibraryError",
    "LimitError",
    "MisfitError",
    "MissingKeyError",
    "ModelNotFoundError",
    "NotFiniteError",
    "RaveDistError",
    "RequestError",
    "Store",
    "StoreError",
    "StoreUnavailableError",
    "TrainingError",
    "UntrustedModelError",
    "VerificationError",
    "WrongPackageError",
    "check",
    "convert",
    "find_model",
    "ingest",
    "list_models",
    "prune",
    "publish",
    "report",
    "run",
    "status",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rave_dist' has no attribute {name!r}")
    if name.endswith("Error"):
        from rave_dist import errors

        value = getattr(errors, name)
    elif name == "convert":
        from rave_dist.archives.api import convert

        value = convert
    elif name == "Converter":
        from rave_dist.conversion.convert import Converter

        value = Converter
    elif name == "Library":
        from rave_dist.views import Library

        value = Library
    elif name == "Store":
        from rave_dist.storage.store import Store

        value = Store
    else:
        from rave_dist import api

        value = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
