"""Paths and addresses in a manifest: those that YAML or another system has spoilt are explained."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

_DRIVE = re.compile(r"([A-Za-z]):[\\/]?")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?(?=/|$)")


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
    if _VARIABLE.match(path):
        raise _refused("variables of the shell are not expanded in a manifest", "write the path itself; ~/ is your home folder")
    return path


def _refused(reason: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("path", "{reason}", {"reason": reason, "fix": fix})


PathText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check)]
