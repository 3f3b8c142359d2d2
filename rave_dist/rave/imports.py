"""Imports acids-rave, and repairs what prevents its import.

No module outside this folder imports ``rave``, ``gin``, ``cached_conv``, ``torchaudio`` or ``pytorch_lightning``.

Repairs before ``import rave``, none of which changes a result:

- torchaudio's wheels load a native library that is linked to CUDA and fails next to a CPU-only torch. RAVE uses none of
  it, so a failing load puts torchaudio into its own "extension not available" state.
- RAVE asks ``scipy.signal`` for ``kaiser`` and ``firwin(nyq=…)``, which newer versions keep elsewhere or spell ``fs``.
- RAVE's classes derive from Lightning's, whose Trainer nothing here uses, and its validation needs scikit-learn. Importing them
  would cost every process 2.6 CPU-seconds and 150 MB, so the classes derive from plain ones, except in a process that has
  imported Lightning itself, and scikit-learn is imported when it is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from rave_dist.errors import ConfigurationError
from rave_dist.rave.engine import INSTALL

_EXTENSION = "torchaudio._extension"


class _ExtensionLoader(importlib.abc.Loader):
    """Runs torchaudio's own extension module; where its library cannot be loaded, says so as torchaudio itself does."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._real.exec_module(module)
        except (OSError, ImportError, RuntimeError) as error:
            reason = str(error)

            def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(function)
                def fail(*args: object, **kwargs: object) -> None:
                    raise RuntimeError(f"{function.__name__} needs torchaudio's native library, which did not load: {reason}")

                return fail

            module.__dict__.update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=fail_if_no_align
            )


class _ExtensionFinder(importlib.abc.MetaPathFinder):
    """Puts `_ExtensionLoader` around one module's loader, and touches no other."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _EXTENSION:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ExtensionLoader(spec.loader)
        return spec


def _scalar(value: Any) -> Any:
    """RAVE's filter search passes arrays of one element where scipy now wants a number."""
    return float(value.item()) if getattr(value, "size", None) == 1 else value


def repair_scipy() -> None:
    """Gives ``scipy.signal`` the names and arguments that RAVE uses; does nothing where they are there."""
    signal: Any = importlib.import_module("scipy.signal")
    if hasattr(signal, "kaiser") and "nyq" in inspect.signature(signal.firwin).parameters:
        return  # an older scipy, as acids-rave pins it
    windows = importlib.import_module("scipy.signal.windows")
    if not hasattr(signal, "kaiser"):
        signal.kaiser = windows.kaiser
    if not getattr(signal.firwin, "accepts_nyq", False):
        signal.firwin = _firwin_with_nyq(signal.firwin)
        real_kaiserord = signal.kaiserord
        signal.kaiserord = lambda ripple, width: real_kaiserord(_scalar(ripple), _scalar(width))


def _firwin_with_nyq(firwin: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(firwin)
    def wrapped(numtaps: Any, cutoff: Any, *args: Any, nyq: float | None = None, **kwargs: Any) -> Any:
        if nyq is not None:
            kwargs["fs"] = 2 * nyq
        return firwin(numtaps, _scalar(cutoff), *args, **kwargs)

    wrapped.accepts_nyq = True  # type: ignore[attr-defined]
    return wrapped


def install_repairs() -> None:
    """Prepares this process for ``import rave``; does nothing the second time. Imports nothing heavy."""
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ExtensionFinder())


@contextmanager
def _without_unused_packages() -> Iterator[None]:
    """Until the end of the context, stand-ins for the packages that only stock's Trainer and its validation use.

    A package that this process has imported already stays what it is.
    """
    from torch import nn  # imported here: this module imports nothing heavy

    class LightningModule(nn.Module):
        """A module; what belongs to a Trainer is absent."""

    class Callback:
        """A callback that no Trainer calls."""

    def principal_components(*args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("sklearn.decomposition").PCA(*args, **kwargs)

    stand_ins: dict[str, dict[str, Any]] = {
        "pytorch_lightning": {
            "LightningModule": LightningModule,
            "Callback": Callback,
            "callbacks": SimpleNamespace(ModelCheckpoint=Callback),
        },
        "pytorch_lightning.trainer": {},
        "pytorch_lightning.trainer.states": {"RunningStage": None},
        "sklearn": {},
        "sklearn.decomposition": {"PCA": principal_components},
    }
    absent = {name: values for name, values in stand_ins.items() if name.partition(".")[0] not in sys.modules}
    for name, values in absent.items():
        module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None))
        module.__dict__.update(values)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@functools.cache
def modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    """``rave``, ``gin`` and ``cached_conv``, imported once."""
    install_repairs()
    repair_scipy()
    with warnings.catch_warnings(), _without_unused_packages():
        warnings.simplefilter("ignore")
        folder()
        try:
            rave = importlib.import_module("rave")
            for name in ("rave.core", "rave.dataset", "rave.transforms", "rave.descript_discriminator", "rave.quantization"):
                importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"acids-rave cannot be imported: {error}",
                fix="install rave-dist again, which installs the dependencies of acids-rave",
            ) from error
    return rave, importlib.import_module("gin"), importlib.import_module("cached_conv")


def folder() -> Path:
    """The folder of the package ``rave``, found without importing it.

    Raises:
        ConfigurationError: acids-rave is not installed.
    """
    spec = importlib.util.find_spec("rave")
    if spec is None or spec.origin is None:
        raise ConfigurationError("acids-rave, the engine that trains the models, is not installed", fix=INSTALL)
    return Path(spec.origin).parent


def rave_module(name: str = "") -> ModuleType:
    """A module of acids-rave: ``rave_module("core")`` is ``rave.core``."""
    rave = modules()[0]
    return importlib.import_module(f"rave.{name}") if name else rave
