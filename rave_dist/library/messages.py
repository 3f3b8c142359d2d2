"""Translates pydantic's errors of a manifest to one message in plain words, with a fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from rave_dist.errors import LibraryError
from rave_dist.library.keys import Location, example, in_yaml, known_keys
from rave_dist.library.schema import LibraryManifest
from rave_dist.library.yaml_text import YamlText
from rave_dist.records.words import words
from rave_dist.suggest import nearest, suggest


def explain(
    error: ValidationError, where: str, written: YamlText | None = None, *, top: type[BaseModel] = LibraryManifest
) -> LibraryError:
    """All problems of a manifest in one error.

    Args:
        error: of ``top``.
        where: the manifest's path.
        written: its text, for line numbers and values as they are written.
        top: what the manifest is.
    """
    said: list[tuple[int, str, str]] = []  # with 0 for no line
    for problem in _independent(error.errors(), written, top):
        location = tuple(part for part in problem["loc"] if part != "[key]")
        line = (written.line(location) if written else None) or 0
        said.append((line, _what(problem, location, written), _fix(problem, location, written, top)))
    said.sort(key=lambda entry: entry[0])
    lines = {line for line, _, _ in said} - {0}
    if len(lines) == 1 and said[0][0]:
        where, said = f"{where}, line {lines.pop()}", [(0, what, fix) for _, what, fix in said]
    what = "; ".join(f"line {line}: {what}" if line else what for line, what, _ in said)
    return LibraryError(what, where=where, fix="; ".join(dict.fromkeys(fix for _, _, fix in said)))


def _independent(problems: Sequence[Any], written: YamlText | None, top: type[BaseModel]) -> Iterator[Mapping[str, Any]]:
    """The problems without those that follow from others: a missing key is misspelt, or entries stand next to their key."""
    followed: set[Location] = set()
    reported: list[Mapping[str, Any]] = []
    for problem in problems:
        *parent, name = problem["loc"] or [""]
        near = nearest(str(name), known_keys(problem["loc"], top)) if problem["type"] == "extra_forbidden" else None
        above = None if near or written is None else _empty_above(problem, problems, written, top)
        if above is not None:
            reason, fix = f"must be indented below '{'.'.join(map(str, above))}'", "put two more spaces before it and its lines"
            problem = {**problem, "type": "indent", "msg": reason, "ctx": {"fix": fix}, "input": {}}
        followed |= {(*parent, near or "")} if above is None else {above}
        reported.append(problem)
    return (p for p in reported if p["loc"] not in followed or not (p["type"] == "missing" or p["input"] is None))


def _empty_above(
    problem: Mapping[str, Any], problems: Sequence[Any], written: YamlText, top: type[BaseModel]
) -> Location | None:
    """The empty key above a problem, at the same level, that the problem's key belongs below."""
    *parent, name = problem["loc"] or [""]
    line = written.line(problem["loc"]) or 0
    for other in problems:
        place = other["loc"]
        is_above = other["input"] is None and place[:-1] == tuple(parent) and (written.line(place) or line) < line
        if is_above and (place == ("instruments",) or name in known_keys((*place, name), top)):
            return tuple(place)
    return None


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


def _fix(problem: Mapping[str, Any], location: tuple[int | str, ...], written: YamlText | None, top: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        return suggest(str(location[-1]), known_keys(location, top))
    if problem["type"] == "missing":
        return f"add {location[-1]!r}" + _for_example(location, top)
    if "fix" in problem.get("ctx", {}):
        return str(problem["ctx"]["fix"])
    value = problem["input"]
    if problem["type"] == "string_type" and isinstance(value, dict) and len(value) == 1:
        return f'put it in quotes: "{": ".join(str(part) for part in next(iter(value.items())))}"'
    if problem["type"] == "string_type" and value is not None and not isinstance(value, dict | list):
        return f'put it in quotes: "{_as_written(value, location, written)}"'
    return f"correct {'.'.join(map(str, location))!r}" + _for_example(location, top)


def _as_written(value: Any, location: tuple[int | str, ...], written: YamlText | None) -> str:
    """A value as it is written, otherwise as YAML or Python would show it."""
    text = written.written(location) if written else None
    if value is None:
        return "empty" if text in (None, "") else f"{text}, which is nothing in YAML"
    if isinstance(value, str):
        return f"'{value}'" if value.isprintable() else repr(value)
    return in_yaml(value) if text is None else text


def _for_example(location: tuple[int | str, ...], top: type[BaseModel]) -> str:
    shown = example(location, top)
    return f", for example {shown}" if shown else ""
