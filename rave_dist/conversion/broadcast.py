"""One stream of audio for several readers that advance together, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

from rave_dist.audio.types import Audio

Result = TypeVar("Result")
Writing = Generator[None, None, Result]
"""Work that reads a stream: yields after each of its blocks, returns its result."""


class Broadcast:
    """A stream that is read once and given to several readers, which get the same arrays.

    All readers are created before the first block is read. Blocks are held until the slowest open reader has them;
    `itertools.tee` holds up to 57 more. An error of the stream is raised in the reader that meets it first.

    Args:
        blocks: the stream, float32 [C, T].

    Attributes:
        has_failed: whether the stream has raised an error.
    """

    def __init__(self, blocks: Iterable[Audio]) -> None:
        self._blocks = iter(blocks)
        self._held: deque[Audio] = deque()
        self._first = 0  # number of the first block that is held
        self._ended = False
        self._readers: list[Reader] = []
        self.has_failed = False

    @property
    def held(self) -> int:
        """Number of blocks that are held."""
        return len(self._held)

    def reader(self) -> Reader:
        """All blocks, from the first."""
        reader = Reader(self)
        self._readers.append(reader)
        return reader

    def close(self, reader: Reader) -> None:
        """Holds nothing for a reader any more."""
        self._readers.remove(reader)
        self._drop()

    def slowest(self) -> Reader | None:
        """The open reader that has read least; None if all are closed."""
        return min(self._readers, key=lambda reader: reader.taken, default=None)

    def take(self, reader: Reader) -> Audio | None:
        """The next block for a reader, read from the stream if need be; None at its end."""
        while not self._ended and reader.taken >= self._first + len(self._held):
            self.has_failed = True  # unless this returns
            block = next(self._blocks, None)
            self.has_failed = False
            if block is None:
                self._ended = True
            else:
                self._held.append(block)
        if reader.taken >= self._first + len(self._held):
            return None
        block = self._held[reader.taken - self._first]
        reader.taken += 1
        self._drop()
        return block

    def _drop(self) -> None:
        needed = min((reader.taken for reader in self._readers), default=self._first + len(self._held))
        while self._first < needed:
            self._held.popleft()
            self._first += 1


class Reader(Iterator[Audio]):
    """The blocks of a `Broadcast` for one reader; ``taken`` is how many it has."""

    def __init__(self, source: Broadcast) -> None:
        self._source = source
        self.taken = 0

    def __next__(self) -> Audio:
        block = self._source.take(self)
        if block is None:
            raise StopIteration
        return block


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
    source = Broadcast(blocks)
    readers = [source.reader() for _ in works]
    running = {reader: work(reader) for reader, work in zip(readers, works, strict=True)}
    results: dict[Reader, Result | Exception] = {}
    try:
        while (reader := source.slowest()) is not None:
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
        for work in running.values():
            work.close()
    return [results[reader] for reader in readers]
