"""What killed conversions left behind: temporary files of the journal, and folders in which OUTPUT was tried.

A temporary file may also be that of another command at work, which has it for a moment: so what is there when a conversion
begins is removed when it ends, if it is still there. An incomplete output needs no search: the next one of the same name
replaces it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rave_dist.conversion.corpus import Plan
from rave_dist.storage.atomic import is_temporary
from rave_dist.storage.probe import is_check
from rave_dist.storage.store import Store
from rave_dist.temporary import remove_abandoned


def find_leftovers(store: Store, plans: Iterable[Plan]) -> tuple[Path, ...]:
    """Finds what earlier commands left of these conversions in folders; their abandoned temporary folders are removed."""
    remove_abandoned()
    found: list[Path] = []
    for plan in plans:
        if store.is_local:
            for folder in (plan.folder.root, plan.folder.journal):
                found += _named(store.address(str(folder)), is_temporary)
        if plan.output.is_local:
            found += _named(plan.output.uri, is_check)
    return tuple(found)


def remove_leftovers(found: Iterable[Path]) -> None:
    """Removes what is still there; what cannot be removed stays."""
    for path in found:
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _named(folder: str, wanted: Callable[[str], bool]) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from (Path(entry.path) for entry in entries if wanted(entry.name))
