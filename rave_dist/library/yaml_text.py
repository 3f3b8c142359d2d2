"""Reads YAML and remembers where each value is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
# Spaces of web pages and chats, which are part of a name for YAML.
_SPECIAL_SPACE = re.compile(r"^(?: *[\u00a0\u2000-\u200b]|\u3000)", re.MULTILINE)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}\.000")
_READ_AS = {"int": "a number", "float": "a number", "bool": "true or false", "timestamp": "a date", "null": "nothing"}


class YamlError(Exception):
    """A text that is not the YAML of a manifest.

    Args:
        line: counted from 1.
        what: the problem in plain words.
        fix: the smallest change.
    """

    def __init__(self, line: int, what: str, fix: str) -> None:
        super().__init__(what)
        self.line, self.what, self.fix = line, what, fix


class YamlText:
    """A YAML text, its value, and the lines of its parts.

    Args:
        text: the whole text.

    Raises:
        YamlError: not YAML, a repeated key, a key that is not a string, or a number that YAML reads in a way of its own.
    """

    def __init__(self, text: str) -> None:
        if found := _SPECIAL_SPACE.search(text):
            what = "the line begins with a special space, as web pages and chats have"
            raise YamlError(text.count("\n", 0, found.start()) + 1, what, "replace it by ordinary spaces")
        try:
            loader = _Loader(text)
            try:
                self._root = loader.get_single_node()
                self.value: Any = None if self._root is None else loader.construct_document(self._root)
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            from rave_dist.library.yaml_errors import explain_yaml  # imported here: most texts are valid

            raise explain_yaml(error, text) from error
        except RecursionError as error:
            raise YamlError(1, "brackets or lists are nested too deeply", "close the brackets that are opened") from error

    def line(self, location: Sequence[int | str]) -> int | None:
        """The line of the key, entry or value at a location, or of the nearest one around it; None if there is none."""
        nodes = list(self._down(location))
        return nodes[-1][0].start_mark.line + 1 if nodes else None

    def written(self, location: Sequence[int | str]) -> str | None:
        """A plain value as it is written; None for any other value."""
        nodes = list(self._down(location))
        value = nodes[-1][1] if len(nodes) == len(location) > 0 else None
        return value.value if isinstance(value, yaml.ScalarNode) and value.style is None else None

    def _down(self, location: Sequence[int | str]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """For each part of a location: the node that names it (a key, or the entry itself) and its value."""
        node = self._root
        for part in location:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                yield node, node
            elif isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == part), None)
                if found is None:
                    return
                yield found
                node = found[1]
            else:
                return


class _Loader(yaml.SafeLoader):
    """Refuses what YAML would silently read as something else: repeated keys, keys and numbers in certain forms."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        digits = str(node.value).lstrip("+-")
        if ":" in digits:
            hours, minutes = digits.split(":")[:2]
            fix = f"write a decimal number: {int(hours) + int(minutes) / 60:.4g}"
            raise YamlError(node.start_mark.line + 1, f"{node.value} is not one number", fix)
        if digits.isdecimal() and digits.startswith("0") and int(digits):
            what = f"{node.value} begins with 0, which makes it another number in YAML"
            raise YamlError(node.start_mark.line + 1, what, f"write {int(digits)}, or put it in quotes")
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if _THOUSANDS.fullmatch(node.value):
            whole = node.value.partition(".")[0]
            what = f"{node.value} may be {whole} or {whole}000: a point begins the decimals"
            raise YamlError(node.start_mark.line + 1, what, f"write {whole}000 or {whole}")
        return float(super().construct_yaml_float(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        before: yaml.Node | None = None
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.tag != f"{_TAG}str":
                raise _not_a_string(key_node, value_node, before, line)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise YamlError(line, f"the key {key!r} is written twice", "remove one of them, or rename it")
            seen.add(key)
            before = value_node
        return super().construct_mapping(node, deep=deep)


_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)


def _not_a_string(key: yaml.Node, value: yaml.Node, before: yaml.Node | None, line: int) -> YamlError:
    """The error for a key such as ``1974:`` or ``no:``, or for a decimal comma."""
    written = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
    if not written:
        fix = "write a name before the colon, in quotes if it begins with & or has brackets"
        return YamlError(line, "there is no name before a colon", fix)
    number = before.value if isinstance(before, yaml.ScalarNode) else ""
    if value.tag.endswith(":null") and key.start_mark.column == value.start_mark.column - len(written) and number.isdigit():
        fix = f"write {number}{written}" if len(written) == 3 else f"write {number}.{written} with a point"
        return YamlError(line, f"{number},{written} is not one number", fix)
    meaning = _READ_AS.get(key.tag.rpartition(":")[2], "something else")
    return YamlError(
        line, f"the name {written} must be a string, and YAML reads it as {meaning}", f'put it in quotes: "{written}":'
    )
