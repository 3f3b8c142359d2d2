"""What the functions of the public API accept: libraries and stores by path or address, names, displays of progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from rave_dist.library.manifest import Library, load_library
from rave_dist.progress import SILENT, Progress
from rave_dist.storage.store import Store

AnyLibrary: TypeAlias = str | Path | Library
AnyStore: TypeAlias = str | Path | Store
AnyProgress: TypeAlias = Progress | bool | None
Names: TypeAlias = str | Sequence[str] | None


def library_of(library: AnyLibrary) -> Library:
    """A library, loaded if it is a path."""
    return library if isinstance(library, Library) else load_library(library)


def store_of(store: AnyStore) -> Store:
    """An existing store; a misspelt address is an error, not an empty store."""
    place = store if isinstance(store, Store) else Store(str(store))
    place.check_exists()
    return place


def names_of(only: Names) -> list[str] | None:
    """Names of instruments as a list; None for all."""
    return None if only is None else [only] if isinstance(only, str) else list(only)


@contextmanager
def reporting(progress: AnyProgress) -> Iterator[Progress]:
    """The display of an argument ``progress``."""
    if progress is True:
        from rave_dist.terminal.display import shown_progress

        with shown_progress() as shown:
            yield shown
    else:
        yield progress or SILENT
