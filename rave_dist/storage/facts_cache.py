"""A cache of facts of models, found out once for each configuration, version of the code and machine.

::

    <cache>/model_facts/<id>.json

The cache is `rave_dist.storage.cache.cache_folder`. A missing, damaged or unwritable entry only costs another measurement.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rave_dist.errors import StoreError
from rave_dist.extensions import VARIABLE as EXTENSIONS
from rave_dist.identity import content_id, hash_blocks
from rave_dist.storage.cache import cache_folder
from rave_dist.storage.store import Store

_PACKAGES = ("rave-dist", "torch", "acids-rave", "cached-conv", "nn-tilde")
_MEASURED_CODE = ("rave", "training", "registry")  # folders with code that affects the facts


def read_facts(request: Mapping[str, Any]) -> Any:
    """The cached result of a request; None if there is no valid entry."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        return Store(str(folder)).read_json(_key(request))
    except StoreError:
        return None


def keep_facts(request: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Caches the result of a request, atomically, if the cache can be written."""
    folder = cache_folder()
    if folder is not None:
        with suppress(StoreError):
            Store(str(folder)).write_json(_key(request), dict(facts))


def _key(request: Mapping[str, Any]) -> str:
    return f"model_facts/{content_id([dict(request), *_circumstances()])}.json"


@functools.cache
def _circumstances() -> tuple[str, ...]:
    """Everything except the request that affects the result."""
    packages = [f"{name} {_version(name)}" for name in _PACKAGES]
    extensions = os.environ.get(EXTENSIONS, "")
    return (_code_hash(), *packages, extensions, platform.machine(), _cpu_model())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _code_hash() -> str:
    """Hash of the code that affects the facts, which in a checkout changes without the version."""
    root = Path(__file__).parents[1]
    paths = sorted(path for folder in _MEASURED_CODE for path in (root / folder).rglob("*.py"))
    return hash_blocks(path.read_bytes() for path in paths)


def _cpu_model() -> str:
    """The processor's name, because step times depend on it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
