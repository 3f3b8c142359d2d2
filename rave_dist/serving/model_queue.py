"""A fair lock for the device that prefers waiters of the loaded model.

In order of arrival, mixed requests for more models than the cache holds would load a model for almost every request.
Grouping them makes loads rare.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class GroupedLock:
    """A lock that is preferably passed to a waiter of the same group.

    Args:
        patience: number of waiters that may overtake the one that has waited longest.
    """

    def __init__(self, patience: int = 8) -> None:
        self._patience = patience
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._taken = False
        self._group = ""
        self._passed = 0

    @property
    def num_waiting(self) -> int:
        """Number of waiters."""
        return sum(not turn.done() for _, turn in self._waiting)

    @asynccontextmanager
    async def take(self, group: str) -> AsyncIterator[None]:
        """Holds the lock inside the block."""
        if self._taken:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((group, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # acquired at the same moment: pass it on
                    self._hand_on()
                raise
        self._taken = True
        self._group = group
        try:
            yield
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        self._waiting = [(group, turn) for group, turn in self._waiting if not turn.done()]  # without cancelled waiters
        if not self._waiting:
            self._taken = False
            return
        chosen = 0
        if self._passed < self._patience:
            chosen = next((i for i, (group, _) in enumerate(self._waiting) if group == self._group), 0)
        self._passed = self._passed + 1 if chosen else 0
        _, turn = self._waiting.pop(chosen)
        turn.set_result(None)
