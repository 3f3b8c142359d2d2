"""Checkpoints written while training continues.

The loop copies its state to host memory, which takes milliseconds, and a thread writes the copy to the store, which may take
minutes. A checkpoint waits for the one before, so that copies do not accumulate.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from rave_dist.errors import StoreError
from rave_dist.storage.store import Store
from rave_dist.training.state.checkpoint import save_checkpoint

_LISTEN_SECONDS = 0.5

logger = logging.getLogger(__name__)


class AsyncCheckpointer:
    """Writes a run's checkpoints in a thread; its errors are raised at the loop's next call.

    Args:
        store: of the run.
        folder: the run's folder of checkpoints.
        keep: number of checkpoints to keep.
    """

    def __init__(self, store: Store, folder: str, *, keep: int) -> None:
        self._store, self._folder, self._keep = store, folder, keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._held: tuple[int, Mapping[str, Any]] | None = None
        self._listener: threading.Thread | None = None
        self._ended = threading.Event()

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._listener is not None:
            self._listener.join()
        self._pool.shutdown(wait=True)
        try:
            self.wait()
        except StoreError as mine:
            if kind is None:
                raise
            logger.warning("the last checkpoint could not be written: %s", mine.what)  # must not replace the first error

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint, after the one before it is written.

        Args:
            step: number of finished steps.
            state: as in `rave_dist.training.state.checkpoint.save_checkpoint`; it must not change afterwards: see `on_host`.

        Raises:
            StoreError: the checkpoint before could not be written.
        """
        self.wait()
        self._held = None
        self._pending = self._begin(step, state)

    def hold(self, step: int, state: Mapping[str, Any], stop: Callable[[], bool]) -> None:
        """Provides a state during a long operation; it is written as soon as the run is asked to stop.

        Args:
            step: number of finished steps.
            state: as in `save`.
            stop: returns whether the run must stop; called twice a second by another thread.
        """
        self._held = (step, state)
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, args=(stop,), name="stop-listener", daemon=True)
            self._listener.start()

    def _listen(self, stop: Callable[[], bool]) -> None:
        while not self._ended.wait(_LISTEN_SECONDS):
            held = self._held
            if held is not None and stop():
                self._begin(*held)  # if this fails, the loop's own attempt at its next step reports the error
                return

    def _begin(self, step: int, state: Mapping[str, Any]) -> Future[None]:
        return self._pool.submit(save_checkpoint, self._store, self._folder, step, state, keep=self._keep)

    def check(self) -> None:
        """Raises errors of the thread, without waiting.

        Raises:
            StoreError: a checkpoint could not be written.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last checkpoint is in the store.

        Raises:
            StoreError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def on_host(value: Any) -> Any:
    """A copy of a state that shares no memory with it, with tensors on the CPU.

    Tensors, lists, tuples and mappings are copied; other values must be immutable.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_host(item) for item in value)
    return value
