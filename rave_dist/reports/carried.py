"""What the results of a conversion have of their recordings' metadata, and what not: counted in one pass and bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rave_dist.conversion.describe import OWN_TAGS
from rave_dist.records import ConversionItem

_MOST = 1000  # different ones that are counted: an archive may have a tag of its own in each file
_NUMBER = re.compile(r"\d+")


@dataclass
class _Counted:
    """In how many files something is, and the words and source of the first."""

    words: str
    source: str
    files: int = 0


class Carried:
    """Counts files with metadata of a kind or tag, and with metadata that was left out for a reason.

    What differs in numbers only is one: 3 cue points and 4.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Counted] = {}
        self._left: dict[str, _Counted] = {}

    def add(self, item: ConversionItem) -> None:
        """Adds an entry of the journal."""
        own = set(OWN_TAGS)
        _count(self._kept, {_kind(name): _kind(name) for name in item.carried if name not in own}, item.source)
        _count(self._left, {_NUMBER.sub("", remark): remark for remark in item.not_carried}, item.source)

    @property
    def kept(self) -> Iterator[tuple[str, int]]:
        """Kind or tag, and the number of files that have it, the most frequent first."""
        return ((each.words, each.files) for each in _sorted(self._kept))

    @property
    def left(self) -> Iterator[tuple[str, str, int, str]]:
        """What was left out, why, the number of files, and one of them; the most frequent first."""
        for each in _sorted(self._left):
            what, _, why = each.words.partition(": ")
            yield what, why, each.files, each.source


def _kind(name: str) -> str:
    """A kind of metadata without the number of its parts."""
    return re.sub(r"^\d+ | with \d+ loops$", "", name)


def _count(counted: dict[str, _Counted], found: dict[str, str], source: str) -> None:
    for key, words in found.items():
        if key in counted or len(counted) < _MOST:
            counted.setdefault(key, _Counted(words, source)).files += 1


def _sorted(counted: dict[str, _Counted]) -> list[_Counted]:
    return sorted(counted.values(), key=lambda each: (-each.files, each.words))
