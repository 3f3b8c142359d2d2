"""Training steps recorded once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rave_dist.errors import ConfigurationError


class CudaGraphStep:
    """Steps of one kind: the first few run normally, then one is recorded as a CUDA graph that all others replay.

    The first ones allocate memory, choose algorithms and create the optimizer's state, as PyTorch requires before a recording,
    and are normal steps of the training.

    Args:
        step: function of a batch of constant shape; its host code must do the same every time.
    """

    FIRST = 3

    def __init__(self, step: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self._step = step
        self._batch: Tensor | None = None
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._losses: dict[str, Tensor] = {}

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Runs the step on a batch.

        Raises:
            ConfigurationError: this configuration's step waits for the device, so that it cannot be recorded.
        """
        if self._batch is None:
            self._batch = torch.empty_like(batch)
        self._batch.copy_(batch)
        if self._done < self.FIRST:
            self._done += 1
            return self._aside(self._batch)
        graph = self._graph or self._record(self._batch)
        graph.replay()
        return {name: value.clone() for name, value in self._losses.items()}

    def _aside(self, batch: Tensor) -> dict[str, Tensor]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self._step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _record(self, batch: Tensor) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may keep running: one copies the next batch to page-locked memory, another writes checkpoints.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._losses = self._step(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConfigurationError(
                f"this configuration's step cannot be recorded ({str(error).partition(chr(10))[0]})",
                where="compute",
                fix="leave out cuda-graphs",
            ) from error
        self._graph = graph
        return graph
