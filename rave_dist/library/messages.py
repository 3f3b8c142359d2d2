"""Translates pydantic's errors of a manifest to one message in plain words, with a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rave_dist.errors import LibraryError
from rave_dist.library.keys import example, known_keys
from rave_dist.suggest import suggest

_WORDS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have at least one entry",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' are allowed, up to 63, the first a letter or digit",
}
_TYPES = {  # prefixes of pydantic's error types
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a number",
    "bool_": "must be true or false",
    "dict_": "must be keys with values",
    "model_": "must be keys with values",
    "tuple_": "must be one name or a list of names",
    "string_": "must be a string",
}


def explain(error: ValidationError, where: str) -> LibraryError:
    """All problems of a manifest in one error.

    Args:
        error: of `LibraryManifest`.
        where: the manifest's path.
    """
    lines: list[str] = []
    fixes: list[str] = []
    for problem in error.errors():
        location, value = tuple(problem["loc"]), problem["input"]
        place = ".".join(str(part) for part in location) or "the manifest"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {place!r}")
            fixes.append(suggest(str(location[-1]), known_keys(location)))
        elif problem["type"] == "missing":
            lines.append(f"{place!r} is missing")
            fixes.append(f"add {location[-1]!r}" + _for_example(location))
        else:
            what = words(dict(problem))
            lines.append(f"{place!r}: {what}" if isinstance(value, dict) else f"{place!r} is {value!r}: {what}")
            fixes.append(problem.get("ctx", {}).get("fix", f"correct {place!r}" + _for_example(location)))
    return LibraryError("; ".join(lines), where=where, fix="; ".join(dict.fromkeys(fixes)))


def _for_example(location: tuple[int | str, ...]) -> str:
    shown = example(location)
    return f", for example {shown}" if shown else ""


def words(problem: Mapping[str, Any]) -> str:
    """The problem of a value, from one of the errors of a pydantic ``ValidationError``."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    for beginning, text in _TYPES.items():
        if kind.startswith(beginning):
            return text
    return str(problem["msg"]).removeprefix("Value error, ")
