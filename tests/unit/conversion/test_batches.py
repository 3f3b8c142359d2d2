"""Rows in batches: each gets what it gets alone, in whatever company, and a failure is of one call."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from rave_dist.conversion.batches import Batches, StoppedError
from rave_dist.conversion.rows import Row

NETWORK = nn.Conv1d(2, 3, 9, padding=4)


class Recorder:
    """Answers with a convolution plus the row's number, and remembers the size of each batch, missing rows included."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, number: Tensor) -> Row:
        self.sizes.append((x.shape[0], int((x != 0).any(-1).any(-1).sum())))
        if bool(x.isnan().any()):
            raise ValueError("NaN")
        return NETWORK(x) + number.reshape(-1, 1, 1), 2 * number


def rows(count: int, length: int = 100, *, seed: int = 0) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(2, length, generator=generator), torch.tensor(number)) for number in range(count)]


@contextmanager
def member(batches: Batches) -> Iterator[None]:
    batches.join(1)
    try:
        yield
    finally:
        batches.leave()


def test_batches_are_full_and_the_rest_is_one_more() -> None:
    played = Recorder()
    given = [*rows(9), *rows(3, 50)]
    results = Batches(4).play("a", played, given)
    assert played.sizes == [(4, 4), (4, 4), (4, 3), (4, 1)]
    for (x, number), (y, twice) in zip(given, results, strict=True):
        assert torch.allclose(y, NETWORK(x) + number, atol=1e-6)
        assert int(twice) == 2 * int(number)


def test_one_at_a_time_is_not_kept_waiting() -> None:
    played = Recorder()
    batches = Batches(1)
    batches.join(2)
    batches.play("a", played, rows(3))
    assert played.sizes == [(1, 1)] * 3
    assert Batches(4).play("a", played, []) == []


def test_a_row_has_the_same_bits_in_any_company() -> None:
    """Threads ask at random moments for rows of three lengths and two functions."""
    lengths, functions = (64, 100, 333), {name: Recorder() for name in "ab"}
    alone = {length: [Batches(8).play("a", Recorder(), [row])[0] for row in rows(20, length)] for length in lengths}
    batches, draw = Batches(8), random.Random(3)
    plans = [[(draw.choice("ab"), draw.choice(lengths), draw.sample(range(20), 3)) for _ in range(15)] for _ in range(6)]

    def work(plan: list[tuple[str, str, list[int]]]) -> None:
        with member(batches):
            for name, length, numbers in plan:
                given = rows(20, length)
                for number, found in zip(
                    numbers, batches.play(name, functions[name], [given[number] for number in numbers]), strict=True
                ):
                    assert all(torch.equal(one, other) for one, other in zip(found, alone[length][number], strict=True))

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, plan) for plan in plans]:
            future.result(timeout=60)
    sizes = [size for played in functions.values() for size in played.sizes]
    assert {size for size, _ in sizes} == {8}
    assert sum(used for _, used in sizes) == 6 * 15 * 3
    assert len(sizes) < 6 * 15, "batches are shared"


def test_what_fails_is_the_call_that_fails_alone() -> None:
    batches, played = Batches(4), Recorder()
    broken = (torch.full((2, 100), torch.nan), torch.tensor(0))

    def work(given: list[Row]) -> list[Row]:
        try:
            return batches.play("a", played, given)
        finally:
            batches.leave()

    batches.join(5)  # of which three must wait for a batch that is not full
    with ThreadPoolExecutor(3) as pool:
        first, second, third = (pool.submit(work, given) for given in (rows(1), [broken], rows(1)))
        with pytest.raises(ValueError, match="NaN"):
            second.result(timeout=60)
        assert [len(future.result(timeout=60)) for future in (first, third)] == [1, 1]
    assert played.sizes[0] == (4, 3), "they were in one batch"
    assert len(work(rows(3))) == 3, "nothing is left over"


def test_half_of_the_members_are_waited_for_and_a_stop_ends_those_who_wait() -> None:
    batches, leave = Batches(4), threading.Event()
    batches.join(1)

    def idle() -> None:
        with member(batches):
            leave.wait(60)

    def work() -> int:
        with member(batches):
            return len(batches.play("a", Recorder(), rows(2)))

    with ThreadPoolExecutor(2) as pool:
        idler, worker = pool.submit(idle), pool.submit(work)
        time.sleep(0.2)
        assert not worker.done(), "two idle members could add a row"
        leave.set()
        assert worker.result(timeout=60) == 2
        idler.result(timeout=60)

        leave.clear()
        idler = pool.submit(idle)
        while batches._members < 2:
            time.sleep(0.01)
        worker = pool.submit(work)
        while not batches._waiting:
            time.sleep(0.01)
        batches.stop()
        with pytest.raises(StoppedError):
            worker.result(timeout=60)
        leave.set()
