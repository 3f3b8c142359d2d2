"""Names of libraries and instruments: they become file names, parts of addresses, and objects in Max and Pure Data."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

LONGEST_NAME = 63
_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$"


def valid_name(text: str) -> str:
    """Converts a string to the name of an instrument or library: letters, digits, ``.``, ``_`` and ``-``; may be empty.

    Example:
        >>> valid_name("Gaïta (2024)")
        'Gaita-2024'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:LONGEST_NAME]


def _check(name: str) -> str:
    if re.fullmatch(_PATTERN, name):
        return name
    if len(name) > LONGEST_NAME:
        reason = f"a name has at most {LONGEST_NAME} characters"
    elif name.isascii():
        reason = "a name consists of letters, digits, '.', '_' and '-', and begins with a letter or digit"
    else:
        reason = "Max and Pure Data open models by file name and need the letters a to z, digits, '.', '_' and '-'"
    near = valid_name(name) or ("a name such as rebana" if name.isascii() else "")
    fix = f"write {near}" if near else "write the name in Latin letters, and its own spelling in credit: {name: …}"
    raise PydanticCustomError("name", "{reason}", {"reason": reason, "fix": fix})


Name = Annotated[str, AfterValidator(_check), WithJsonSchema({"type": "string", "pattern": _PATTERN})]
