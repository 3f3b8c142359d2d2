"""Rows of several chunks, files and threads through a model at once, which a GPU needs to be busy.

A batch always has the same number of rows, and rows of equal shape: missing ones are zeros. So the kernels are chosen by the
shape alone, and what a row becomes depends neither on its company nor on the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition

import torch

from rave_dist.conversion.rows import Row

Apply = Callable[..., Row]
"""Takes and returns tensors with the dimension of the batch first."""


# On a CPU they save nothing and cost memory.
_SIZES = {"cuda": 8}


class StoppedError(Exception):
    """The threads that play are to end."""


class Batches:
    """Collects rows into batches, in one thread or several.

    Threads that play together are members: a batch that is not full waits until half of them wait for a row, because lengths
    may differ so much that it is never full. One thread of its own runs the functions.

    Args:
        size: rows of a batch; 1 plays each row where it is asked for.

    Attributes:
        threads: of files at once that keep it busy: while half of them wait for a batch, the others read and write.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.threads = 2 * size if size > 1 else 1
        self._player = ThreadPoolExecutor(1, thread_name_prefix="model")  # starts no thread before it is used
        self._changed = Condition()
        self._members = 0
        self._waiting: set[_Call] = set()
        self._queues: dict[Hashable, list[_Place]] = {}
        self._stopped = False

    @classmethod
    def on(cls, device: str) -> Batches:
        """Of a size that suits a device, ``cpu`` or ``cuda``."""
        return cls(_SIZES.get(torch.device(device).type, 1))

    def join(self, members: int) -> None:
        """Adds threads that are going to play, or are busy with what they play next."""
        with self._changed:
            self._members += members

    def leave(self) -> None:
        """Says that a thread is not going to play any more."""
        with self._changed:
            self._members -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends all calls, and those to come, with a StoppedError."""
        self._stopped = True
        with self._changed:
            self._changed.notify_all()

    def check(self) -> None:
        """Raises StoppedError after `stop`."""
        if self._stopped:
            raise StoppedError

    def play(self, key: Hashable, apply: Apply, rows: Sequence[Row]) -> list[Row]:
        """What a function makes of rows, which may share batches with those of other calls.

        Args:
            key: equal for functions that do the same.
            apply: the function.
            rows: its inputs, in the host's memory, like the results.

        Raises:
            StoppedError: after `stop`.
            Exception: whatever the function raises for a batch with one of the rows.
        """
        if self.size == 1:
            return [_in_batch(apply, [row], 1)[0] for row in rows]
        call = _Call(rows, apply)
        with self._changed:
            for index, row in enumerate(rows):
                self._queues.setdefault((key, tuple(part.shape for part in row)), []).append((call, index))
            self._waiting.add(call)
            try:
                while call.left and call.error is None:
                    self.check()
                    if batch := self._next():
                        self._play(batch)
                    else:
                        self._changed.wait()
            finally:
                self._forget(call)
        if call.error is not None:
            raise call.error
        return call.results

    def _next(self) -> list[_Place]:
        """A full batch, or the fullest if half of the members wait; else empty."""
        kind = max(self._queues, key=lambda kind: len(self._queues[kind]))
        if len(self._queues[kind]) < self.size and 2 * len(self._waiting) < self._members:
            return []
        batch, rest = self._queues[kind][: self.size], self._queues[kind][self.size :]
        self._queues[kind] = rest
        if not rest:
            del self._queues[kind]
        return batch

    def _play(self, batch: list[_Place]) -> None:
        calls = {call for call, _ in batch}
        error: BaseException | None
        try:
            played = self._player.submit(_in_batch, batch[0][0].apply, [call.rows[index] for call, index in batch], self.size)
            error = played.exception()
        except RuntimeError as refused:  # Python is ending
            error = refused
        if error is not None and len(calls) > 1:  # the others of the batch are not to fail because of one
            for call in calls:
                self._play([place for place in batch if place[0] is call])
            return
        if error is None:
            for (call, index), result in zip(batch, played.result(), strict=True):
                call.results[index] = result
                call.left -= 1
        for call in calls:
            call.error = error
            if error is not None or not call.left:
                self._forget(call)
        self._changed.notify_all()

    def _forget(self, call: _Call) -> None:
        """Takes back what a call still has in the queues; from now on its thread can add rows."""
        self._waiting.discard(call)
        if call.left:
            kept = {kind: [entry for entry in queue if entry[0] is not call] for kind, queue in self._queues.items()}
            self._queues = {kind: queue for kind, queue in kept.items() if queue}


class _Call:
    """A call of `Batches.play`, and its results as far as they are known."""

    def __init__(self, rows: Sequence[Row], apply: Apply) -> None:
        self.rows = rows
        self.apply = apply
        self.results: list[Row] = [()] * len(rows)
        self.left = len(rows)
        self.error: BaseException | None = None


_Place = tuple[_Call, int]
"""A call, and the number of one of its rows."""


def _in_batch(apply: Apply, rows: Sequence[Row], size: int) -> list[Row]:
    """What a function makes of at most ``size`` rows of equal shape."""
    missing = size - len(rows)
    inputs = [torch.stack([*parts, *[torch.zeros_like(parts[0])] * missing]) for parts in zip(*rows, strict=True)]
    # Unoptimised: TorchScript's profiling would compile other kernels, with other rounding, after some calls. On a GPU
    # PyTorch's defaults let convolutions round to 10 bits (TF32), choose kernels by length, and sum in any order.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with exact, torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        outputs = [output.cpu() for output in apply(*inputs)]
    return [tuple(output[index] for output in outputs) for index in range(len(rows))]
