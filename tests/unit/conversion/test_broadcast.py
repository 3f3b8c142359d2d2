"""One stream for several readers: each gets all of it, in constant memory, and an error of one does not end the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rave_dist.audio.types import Audio
from rave_dist.conversion.broadcast import Broadcast, Writing, run_together


def stream(count: int, *, fails_at: int | None = None) -> Iterator[Audio]:
    for number in range(count):
        if number == fails_at:
            raise ValueError("the source is damaged")
        yield np.full((1, 10), number, np.float32)


def collect(seen: list[float], *, at_once: int = 1, fails_at: int | None = None) -> Callable[[Iterator[Audio]], Writing[float]]:
    """Work that reads some blocks at once and returns the sum of all."""

    def work(blocks: Iterator[Audio]) -> Writing[float]:
        total = 0.0
        for number, block in enumerate(blocks):
            if number == fails_at:
                raise KeyError("this one fails")
            seen.append(float(block[0, 0]))
            total += float(block.sum())
            if number % at_once == at_once - 1:
                yield
        return total

    return work


@pytest.mark.parametrize("at_once", [(1, 1, 1), (1, 7, 3), (50, 1, 2)])
def test_every_reader_gets_the_whole_stream(at_once: tuple[int, ...]) -> None:
    seen: list[list[float]] = [[], [], []]
    works = [collect(part, at_once=size) for part, size in zip(seen, at_once, strict=True)]
    assert run_together(stream(100), works, ends_one=()) == [10 * sum(range(100))] * 3
    assert seen == [list(range(100))] * 3


def test_what_is_held_does_not_grow_with_the_stream() -> None:
    held: list[int] = []
    source = Broadcast(stream(10_000))
    fast, slow = source.reader(), source.reader()
    for _ in range(1000):
        for _ in range(10):
            next(fast)
        held.append(source.held)
        for _ in range(10):
            next(slow)
    assert max(held) <= 10
    assert list(fast) == list(slow) == []


def test_a_work_that_fails_ends_alone() -> None:
    seen: list[list[float]] = [[], []]
    results = run_together(stream(100), [collect(seen[0]), collect(seen[1], fails_at=5)], ends_one=(KeyError,))
    assert results[0] == 10 * sum(range(100))
    assert isinstance(results[1], KeyError)
    assert seen[1] == [0, 1, 2, 3, 4]


def test_an_error_of_the_stream_is_every_work_s_and_closes_all() -> None:
    closed: list[int] = []

    def work(number: int) -> Callable[[Iterator[Audio]], Writing[int]]:
        def run(blocks: Iterator[Audio]) -> Writing[int]:
            try:
                for _ in blocks:
                    yield
            finally:
                closed.append(number)
            return number

        return run

    with pytest.raises(ValueError, match="damaged"):
        run_together(stream(10, fails_at=4), [work(0), work(1), work(2)], ends_one=(ValueError,))
    assert sorted(closed) == [0, 1, 2]


def test_another_error_of_a_work_ends_all() -> None:
    with pytest.raises(KeyError):
        run_together(stream(10), [collect([]), collect([], fails_at=3)], ends_one=(ValueError,))
