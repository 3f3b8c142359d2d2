"""Globs over the paths of a disk or a store, with ``**`` for any depth; the letter case of an extension does not matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_MAGIC = re.compile(r"[*?[]")
_SET = re.compile(r"\[!?\]?[^]]*\]")


def has_wildcards(path: str) -> bool:
    """Whether a path may be a glob."""
    return _MAGIC.search(path) is not None


@dataclass(frozen=True)
class Glob:
    """A glob below a folder.

    Attributes:
        root: the folder, whose name is taken literally.
        parts: the components of the path below it.
    """

    root: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: str, *, exists: Callable[[str], bool]) -> Glob:
        """Divides a path before the first component that is a wildcard.

        Args:
            path: with ``/``.
            exists: whether there is a file or folder of this very name, which is then not a wildcard.
        """
        parts = path.split("/")
        plain = 0
        while plain < len(parts) - 1:
            if has_wildcards(parts[plain]) and not exists("/".join(parts[: plain + 1])):
                break
            plain += 1
        return cls("/".join(parts[:plain]), tuple(parts[plain:]))

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of characters in it, such as ``[12]``, which may have been meant as part of a name."""
        return tuple(found for part in self.parts for found in _SET.findall(part))

    def matches(self, relative: str) -> bool:
        """Whether it matches a path below its root."""
        return _matches(self.parts, relative.split("/"))

    def enters(self, relative: str) -> bool:
        """Whether it can match a path inside a folder below its root."""
        return _enters(self.parts, relative.split("/"))


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names)
        return any(_matches(parts[1:], names[start:]) for start in range(len(names)))
    return bool(names) and _fits(names[0], parts[0]) and _matches(parts[1:], names[1:])


def _enters(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts or not names or parts[0] == "**":
        return bool(parts)
    return _fits(names[0], parts[0]) and _enters(parts[1:], names[1:])


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(name, part) or fnmatchcase(_lower_extension(name), _lower_extension(part))


def _lower_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return f"{stem}{dot}{extension.lower()}" if dot else name
