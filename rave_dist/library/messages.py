"""Translates pydantic's errors of a manifest to one message in plain words, with a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rave_dist.errors import LibraryError
from rave_dist.library.keys import example, in_yaml, known_keys
from rave_dist.library.yaml_text import YamlText
from rave_dist.suggest import suggest

_WORDS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have at least one entry",
    "string_too_short": "must not be empty",
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


def explain(error: ValidationError, where: str, written: YamlText | None = None) -> LibraryError:
    """All problems of a manifest in one error.

    Args:
        error: of `LibraryManifest`.
        where: the manifest's path.
        written: its text, for line numbers and values as they are written.
    """
    said: list[tuple[int | None, str]] = []
    fixes: list[str] = []
    for problem in error.errors():
        location = tuple(part for part in problem["loc"] if part != "[key]")
        said.append((written.line(location) if written else None, _what(dict(problem), location, written)))
        fixes.append(_fix(dict(problem), location, written))
    lines = {line for line, _ in said}
    if len(lines) == 1 and None not in lines:
        where, said = f"{where}, line {lines.pop()}", [(None, what) for _, what in said]
    what = "; ".join(what if line is None else f"line {line}: {what}" for line, what in said)
    return LibraryError(what, where=where, fix="; ".join(dict.fromkeys(fixes)))


def _what(problem: Mapping[str, Any], location: tuple[int | str, ...], written: YamlText | None) -> str:
    place = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}"
    if problem["type"] == "missing":
        return f"{place!r} is missing"
    if not location:
        return words(problem)
    if problem["loc"][-1] == "[key]" or isinstance(problem["input"], dict):
        return f"{place!r}: {words(problem)}"
    return f"{place!r} is {_as_written(problem['input'], location, written)}: {words(problem)}"


def _fix(problem: Mapping[str, Any], location: tuple[int | str, ...], written: YamlText | None) -> str:
    if problem["type"] == "extra_forbidden":
        return suggest(str(location[-1]), known_keys(location))
    if problem["type"] == "missing":
        return f"add {location[-1]!r}" + _for_example(location)
    if "fix" in problem.get("ctx", {}):
        return str(problem["ctx"]["fix"])
    value = problem["input"]
    if problem["type"] == "string_type" and value is not None and not isinstance(value, dict | list):
        return f'put it in quotes: "{_as_written(value, location, written)}"'
    return f"correct {'.'.join(map(str, location))!r}" + _for_example(location)


def _as_written(value: Any, location: tuple[int | str, ...], written: YamlText | None) -> str:
    """A value as it is written, otherwise as YAML or Python would show it."""
    text = written.written(location) if written else None
    if value is None:
        return "empty" if text in (None, "") else f"{text}, which is nothing in YAML"
    if isinstance(value, str):
        return f"'{value}'" if value.isprintable() else repr(value)
    return in_yaml(value) if text is None else text


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
    return str(problem["msg"]).removeprefix("Value error, ")  # pydantic's prefix of our own sentences
