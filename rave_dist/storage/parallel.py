"""Requests of a process to a store: several at once, because each waits for an answer, but never more than a store can take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

REQUESTS_AT_ONCE = 16
"""Maximum requests of `at_once` that wait for their answers."""

REQUESTS_PER_SECOND = 400
"""Maximum requests of a process to S3, with their repetitions; on average of any second."""


class Pace:
    """Lets events happen at a limited rate: each one waits for its turn.

    Args:
        per_second: the rate.
        clock: returns the time in seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval, self._clock, self._sleep = 1 / per_second, clock, sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Waits for the next turn; no turns are saved while nothing happens."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Calls a function with each item, up to 16 at a time; returns the results in order.

    Raises:
        Exception: that of the first item whose call failed.
    """
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="store") as pool:
        return list(pool.map(function, items))
