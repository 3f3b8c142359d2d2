"""The registry's listing, cached for a few seconds, so that a burst of requests reads the store once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from rave_dist.errors import StoreError
from rave_dist.records import ModelCard, ModelFolder, Problem
from rave_dist.registry import store as registry
from rave_dist.storage.store import Store

Result = TypeVar("Result")


@dataclass(frozen=True)
class Models:
    """All published models, every version, and the cards that are not valid."""

    cards: tuple[ModelCard, ...]
    invalid: tuple[Problem, ...] = ()


class Listing:
    """The models of a store.

    Args:
        seconds: lifetime of an entry. Errors are not cached: a model published after a 404 is found at once.
    """

    def __init__(self, store: Store, *, seconds: float = 3.0) -> None:
        self._store = store
        self._seconds = seconds
        self._health = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._answers: dict[str, tuple[float, asyncio.Future[Any]]] = {}

    async def models(self) -> Models:
        """All published models, every version.

        Raises:
            StoreError: the store is gone.
        """
        return await self._kept("", self._list)

    async def find(self, reference: str) -> ModelCard:
        """The model of NAME (the latest) or NAME@VERSION.

        Raises:
            ModelNotFoundError: there is none; its fix has the nearest name.
            StoreError: the store is gone.
        """
        return await self._kept(f"={reference}", lambda: self._find(reference))

    async def check(self, *, seconds: float = 10.0) -> None:
        """Asks whether the store responds, in a separate thread: requests that wait do not delay the answer.

        A store on a busy machine or a distant server may take seconds, and is not gone.

        Raises:
            StoreError: it is gone, or does not respond within ``seconds``.
        """
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().run_in_executor(self._health, self._ask)
        except TimeoutError as error:
            what = f"the store does not respond within {seconds:g} seconds"
            raise StoreError(what, where=self._store.uri, fix="check the disk or the network of the store") from error

    def _ask(self) -> None:
        self._store.check_exists()
        self._store.exists(ModelFolder.versions())

    def _list(self) -> Models:
        self._store.check_exists()
        invalid: list[Problem] = []
        cards = registry.list_models(self._store, lambda error: invalid.append(Problem.of(error)))
        return Models(tuple(cards), tuple(invalid))

    def _find(self, reference: str) -> ModelCard:
        self._store.check_exists()
        return registry.find(self._store, reference)

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
