"""Explains the errors of the YAML parser in plain words, with the line and a fix."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from rave_dist.library.yaml_text import YamlError

_INDENTATION = "write entries of the same level below each other, with the same number of spaces before them"
_SPECIAL = "*&!%@`"
_HAS_COLON = re.compile(r":(?=\s|$)|^\s*- ")


def explain_yaml(error: yaml.YAMLError, text: str) -> YamlError:
    """The parser's error in plain words.

    Args:
        error: of PyYAML.
        text: the whole text.
    """
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return YamlError(line, f"there is an unprintable character, number {error.character}", "remove it")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return YamlError(1, "this is not valid YAML", "compare it with the example in README, Your own recordings")
    mark = error.problem_mark
    problem, context = str(error.problem or ""), str(error.context or "")
    opened = error.context_mark or mark
    lines = text.splitlines()
    at = lines[mark.line] if mark.line < len(lines) else ""
    line = mark.line + 1
    character = at[mark.column : mark.column + 1]
    if "\t" in at[: mark.column + 1] or "\t" in problem:
        return YamlError(line, "there is a tab before the text", "indent with spaces: YAML does not allow tabs there")
    if "double-quoted" in context and "escape" in problem:
        what = f"{at.strip()} has a backslash in double quotes, where it begins a special character"
        return YamlError(line, what, "use single quotes, or / in paths")
    if "quoted scalar" in context:
        return _unclosed(opened.line + 1, "the quotation mark")
    first = lines[opened.line][opened.column : opened.column + 1] if opened.line < len(lines) else ""
    if "constructor for the tag" in problem or "tag" in context:
        return YamlError(line, "words that begin with ! are not supported", "put the word in quotes, or remove the !")
    if "undefined alias" in problem or (first and first in _SPECIAL) or (character and character in _SPECIAL):
        special = first if first and first in _SPECIAL else character or "*"
        word = re.split(r"[\s,\]}]", at[at.find(special) :], maxsplit=1)[0].rstrip(":") if special in at else special
        return YamlError(line, f"{word} begins with {special}, which has a meaning in YAML", f'put it in quotes: "{word}"')
    if "flow sequence" in context or "flow mapping" in context:
        if mark.line == opened.line and character == ":":
            what = f"{at.strip()} has a colon too many"
            return YamlError(line, what, "separate entries by commas, and put text with a colon and a space in quotes")
        if mark.line == opened.line and character not in "]}":
            fix = "separate entries by commas, and put text with brackets or quotation marks in double quotes"
            return YamlError(line, f"there is no comma before {at[mark.column :].strip()}", fix)
        if "#" in lines[opened.line][opened.column :]:
            what = "a # ends the line for YAML, and a bracket before it is not closed"
            return YamlError(opened.line + 1, what, "put text with a # in quotes")
        bracket = "[" if "sequence" in context else "{"
        return _unclosed(opened.line + 1, f"the bracket {bracket}")
    if "another document" in problem:
        return YamlError(line, "--- begins another text, and a manifest is one", "remove this line, or what follows it")
    if "but found" in problem and character and character in "]}":
        return YamlError(line, f"there is a bracket {character} too many", "remove it, or open it where it belongs")
    if "mapping values are not allowed" in problem:
        before = _line_before(lines, mark.line)
        if before is not None and not _HAS_COLON.search(lines[before]):
            return _no_colon(before + 1, lines[before])
        fix = f"put text with a colon and a space in quotes; {_INDENTATION}"
        return YamlError(line, f"{at.strip()} has a colon too many, or is indented too far", fix)
    if "could not find expected ':'" in problem:
        return _no_colon(opened.line + 1, lines[opened.line])
    return YamlError(line, f"{at.strip() or 'the end'} does not fit the lines above it", _INDENTATION)


def _line_before(lines: Sequence[str], index: int) -> int | None:
    """The line before one that has neither a comment nor nothing on it."""
    return next((i for i in range(index - 1, -1, -1) if lines[i].strip() and not lines[i].lstrip().startswith("#")), None)


def _no_colon(line: int, text: str) -> YamlError:
    what = f"{text.strip()} has no colon" + (" with a space behind it" if ":" in text else "")
    return YamlError(line, what, "write a key as `key: value`, with a space after the colon")


def _unclosed(line: int, what: str) -> YamlError:
    return YamlError(line, f"{what} that is opened here is not closed correctly", "close it, and separate entries by commas")
