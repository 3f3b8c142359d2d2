"""Paths and addresses in a manifest: those that YAML or another system has spoilt are explained."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from rave_dist.errors import StoreError
from rave_dist.storage.schemes import has_scheme, is_remote, split

_DRIVE = re.compile(r"([A-Za-z]):[\\/]?")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?(?=/|$)|%[A-Za-z_]+%")
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def _check(path: str) -> str:
    drive = _DRIVE.match(path)
    control = next((character for character in path if character < " "), None)
    if control is not None:
        raise _refused(
            "it contains a control character, as \\t, \\r or \\n in double quotes",
            "write the path without quotes, or in single quotes",
        )
    if drive is not None:
        rest = path[drive.end() :].replace("\\", "/")
        raise _refused(
            "this is a path of Windows, and this system has no drive letters",
            f"in WSL write /mnt/{drive[1].lower()}/{rest}",
        )
    if path.startswith("\\\\"):
        raise _refused("this is a network path of Windows", "mount the share, and write the folder that it is mounted at")
    if slashes := _ONE_SLASH.match(path):
        rest = path[slashes.end() :]
        raise _refused("this address has one / after its colon", f"write {slashes[1]}://{rest}, or ./{path} for a folder")
    if is_remote(path):
        try:
            split(path)
        except StoreError as error:
            raise _refused(error.what, error.fix) from error
    if _VARIABLE.match(path):
        raise _refused("variables of the shell are not expanded in a manifest", "write the path itself; ~/ is your home folder")
    return path


def _refused(reason: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("path", "{reason}", {"reason": reason, "fix": fix})


PathText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check)]


def resolved(manifest: Path, path: str) -> str:
    """The absolute path of a path in a manifest, relative to its folder, without ``..``; an address stays as it is."""
    return path if has_scheme(path) else os.path.abspath(manifest.parent / os.path.expanduser(path))
