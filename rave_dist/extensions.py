"""Extensions: modules that register a storage scheme, a decoder, an augmentation and so on, found by name.

An extension is a module that is either named by an installed package in the entry-point group ``rave_dist.extensions``, or
listed in the environment variable ``RAVE_DIST_EXTENSIONS`` (comma-separated module names). Every process imports them when a
name is looked up that is not built in, so that fresh processes and Ray workers know them too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from rave_dist.errors import ConfigurationError

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
    """Named implementations of one kind: those built in, then those that extensions register.

    A built-in name is found without importing any extension.

    Args:
        kind: what an entry is, for messages: ``storage scheme``.
        builtin: the entries of this package, in order.
    """

    def __init__(self, kind: str, builtin: Mapping[str, Entry]) -> None:
        self.kind = kind
        self.builtin = tuple(builtin)
        self._entries = dict(builtin)

    def register(self, name: str, entry: Entry) -> None:
        """Adds an entry; called by an extension when it is imported.

        Raises:
            ConfigurationError: the name is taken by something else.
        """
        if name in self._entries:
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
