"""One stream of audio for several readers that advance together, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from rave_dist.audio.types import Audio

Result = TypeVar("Result")
Writing = Generator[None, None, Result]
"""Work that reads a stream: yields after each of its blocks, returns its result."""


class Broadcast:
    """A stream that is read once and given to several readers, which get the same arrays.

    Blocks are held until the slowest open reader has them. An error of the stream is raised in the reader that meets it first.

    Args:
        blocks: the stream, float32 [C, T].
        readers: how many.
    """

    def __init__(self, blocks: Iterator[Audio], readers: int) -> None:
        self._blocks = blocks
        self._held: deque[Audio] = deque()
        self._first = 0  # number of the first block that is held
        self._next = dict.fromkeys(range(readers), 0)  # of the open readers: the number of the block that each needs
        self._ended = False
        self.has_failed = False

    @property
    def held(self) -> int:
        """Number of blocks that are held."""
        return len(self._held)

    def read(self, reader: int) -> Iterator[Audio]:
        """The blocks for a reader."""
        while self._has(self._next[reader]):
            block = self._held[self._next[reader] - self._first]
            self._next[reader] += 1
            self._drop()
            yield block

    def close(self, reader: int) -> None:
        """Holds nothing for a reader any more."""
        self._next.pop(reader, None)
        self._drop()

    def slowest(self) -> int:
        """The open reader that has read least."""
        return min(self._next, key=lambda reader: self._next[reader])

    def __bool__(self) -> bool:
        """Whether a reader is open."""
        return bool(self._next)

    def _has(self, number: int) -> bool:
        """Whether there is a block of this number, which is read from the stream if need be."""
        while not self._ended and number >= self._first + len(self._held):
            self.has_failed = True  # unless this returns
            block = next(self._blocks, None)
            self.has_failed = False
            if block is None:
                self._ended = True
            else:
                self._held.append(block)
        return number < self._first + len(self._held)

    def _drop(self) -> None:
        needed = min(self._next.values(), default=self._first + len(self._held))
        while self._first < needed:
            self._held.popleft()
            self._first += 1


def run_together(
    blocks: Iterator[Audio],
    works: Sequence[Callable[[Iterator[Audio]], Writing[Result]]],
    *,
    ends_one: tuple[type[Exception], ...],
) -> list[Result | Exception]:
    """Gives one stream to several works; the one that has read least always advances.

    Args:
        blocks: the stream, float32 [C, T].
        works: each gets the stream.
        ends_one: errors of a work that end only this work.

    Returns:
        The result of each, or its error of the kinds ``ends_one``.

    Raises:
        Exception: the first error of the stream, or another error of a work; the other works are closed.
    """
    source = Broadcast(blocks, len(works))
    running = [work(source.read(reader)) for reader, work in enumerate(works)]
    results: dict[int, Result | Exception] = {}
    try:
        while source:
            reader = source.slowest()
            try:
                next(running[reader])
                continue
            except StopIteration as end:
                results[reader] = end.value
            except ends_one as error:
                if source.has_failed:
                    raise
                results[reader] = error
            source.close(reader)
    finally:
        for work in running:
            work.close()
    return [results[reader] for reader in range(len(works))]
