"""Extensions: modules that register a storage scheme, a decoder, an augmentation, a loss, an export format or a metric.

An extension is a module that an installed package names in the entry-point group ``rave_dist.extensions``, or that is listed
in the environment variable ``RAVE_DIST_EXTENSIONS`` (comma-separated module names). Every process imports them at the first
look-up of a name that is not built in, so that fresh processes and Ray workers have them too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, get_args

from rave_dist import options
from rave_dist.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

VARIABLE = "RAVE_DIST_EXTENSIONS"
GROUP = "rave_dist.extensions"

Entry = TypeVar("Entry")

_loaded: set[str] = set()
_lock = threading.RLock()


def load() -> None:
    """Imports the extensions that this process has not imported yet.

    Raises:
        ConfigurationError: one of them cannot be imported.
    """
    with _lock:
        listed = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
        if not _loaded:
            listed += [point.module for point in importlib.metadata.entry_points(group=GROUP)]
            _loaded.add("")
        for name in listed:
            if name in _loaded:
                continue
            _loaded.add(name)
            try:
                importlib.import_module(name)
            except (ImportError, SyntaxError) as error:
                _loaded.discard(name)
                raise ConfigurationError(
                    f"this extension cannot be imported: {error}",
                    where=name,
                    fix=f"install it, add its folder to PYTHONPATH, or remove it from {VARIABLE}",
                ) from error


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Named implementations of one kind: built-in ones, then those registered by extensions.

    A built-in name is found without importing any extension.

    Args:
        kind: the kind of an entry in messages: ``storage scheme``.
        builtin: the entries of this package, in order.
        reserved: names that this package uses for other purposes.
    """

    def __init__(self, kind: str, builtin: Mapping[str, Entry] | None = None, *, reserved: Iterable[str] = ()) -> None:
        self.kind = kind
        self._entries = dict(builtin or {})
        self._reserved = frozenset(reserved)

    def register(self, name: str, entry: Entry) -> None:
        """Adds an entry; called by an extension when it is imported.

        Raises:
            ConfigurationError: the name is in use.
        """
        if name in self._entries or name in self._reserved:
            raise ConfigurationError(f"there already is a {self.kind} of this name", where=name, fix="choose another name")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            load()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        load()
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        load()
        return len(self._entries)


class ApplyAugmentation(Protocol):
    """The function of an `Augmentation`."""

    def __call__(self, x: Tensor, value: Tensor, /, *, sample_rate: int) -> Tensor:
        """Rows ``[R, C, T]`` of the same shape."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """A change of training windows.

    Attributes:
        probability: default probability that a window is changed.
        apply: the changed rows; called with rows ``[R, C, T]``, a random number in [0, 1) for each ``[R]``, and
            ``sample_rate=`` in Hz.
    """

    probability: float
    apply: ApplyAugmentation


@dataclass(frozen=True)
class Loss:
    """A further term of the generator's loss.

    Attributes:
        weight: default weight.
        compute: the mean over a batch, of the recording ``[B, C, T]``, the output ``[B, C, T]`` and the sample rate in
            Hz; differentiable in the output.
    """

    weight: float
    compute: Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class ExportFormat:
    """A further file of a published model.

    Attributes:
        suffix: of the file's name: ``.onnx``.
        write: writes the file; called with the path of the verified offline TorchScript and the path to write.
    """

    suffix: str
    write: Callable[[Path, Path], None]


@dataclass(frozen=True)
class Metric:
    """A further metric of a model's output for the held-out recordings.

    Attributes:
        label: for people, with the unit: ``Crest factor (dB)``.
        measure: the number, from the recording ``[C, T]``, the output ``[C, T]`` (float32, full scale 1) and the sample rate in
            Hz; None where it does not apply.
    """

    label: str
    measure: Callable[[NDArray[np.float32], NDArray[np.float32], int], float | None]


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", reserved=(*get_args(options.Augmentation), "low-data"))
LOSSES: Registry[Loss] = Registry("loss")
EXPORT_FORMATS: Registry[ExportFormat] = Registry("export format", reserved=("offline", "streaming", "phase_1"))
METRICS: Registry[Metric] = Registry("metric")
