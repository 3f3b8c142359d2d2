"""The registry's listing, cached for a few seconds, so that a burst of requests reads the store once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rave_dist.records import ModelCard
from rave_dist.registry import store as registry
from rave_dist.storage.store import Store

Result = TypeVar("Result")


class Listing:
    """The models of a store.

    Args:
        seconds: lifetime of an entry. Errors are not cached: a model published after a 404 is found at once.
    """

    def __init__(self, store: Store, *, seconds: float = 3.0) -> None:
        self._store = store
        self._seconds = seconds
        self._answers: dict[str, tuple[float, asyncio.Future[Any]]] = {}

    async def models(self) -> list[ModelCard]:
        """All published models, every version."""
        return await self._kept("", lambda: registry.list_models(self._store))

    async def find(self, reference: str) -> ModelCard:
        """The model of NAME (the latest) or NAME@VERSION.

        Raises:
            ModelNotFoundError: there is none; its fix has the nearest name.
        """
        return await self._kept(f"={reference}", lambda: registry.find(self._store, reference))

    async def _kept(self, key: str, ask: Callable[[], Result]) -> Result:
        present = time.monotonic()
        self._answers = {k: (until, a) for k, (until, a) in self._answers.items() if until > present and not _failed(a)}
        if key not in self._answers:
            answer = asyncio.get_running_loop().run_in_executor(None, ask)
            self._answers[key] = (present + self._seconds, answer)
        # Shielded: other requests may wait for the same listing when this one is cancelled.
        result: Result = await asyncio.shield(self._answers[key][1])
        return result


def _failed(answer: asyncio.Future[Any]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
