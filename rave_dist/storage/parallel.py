"""Several requests to a store at once: each waits for an answer rather than for this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

REQUESTS_AT_ONCE = 16


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Calls a function with each item, up to 16 at a time; returns the results in order.

    Raises:
        Exception: that of the first item whose call failed.
    """
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="store") as pool:
        return list(pool.map(function, items))
