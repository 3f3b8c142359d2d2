"""How the windows of a batch are divided: into successive parts, and each part among the workers of a run.

A part is divided among the workers so that they compute together what one process computes for that part. What RAVE normalises
by all targets is normalised by those of all workers; noise is drawn for the whole part by every worker, which keeps its own
rows, so that all random generators stay equal; gradients and logged values are weighted by the share of their windows and
added up. Only the order of additions differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.overrides import TorchFunctionMode

from rave_dist.errors import ConfigurationError
from rave_dist.options import ONE_WORKER_OPTIONS
from rave_dist.rave.imports import rave_module
from rave_dist.training.step.spectral_loss import is_lean
from rave_dist.training.worker_group import WorkerGroup

Matching = Callable[[Tensor, Tensor], Tensor]


class Division:
    """The batch of a single process.

    Args:
        accumulation_steps: equal parts whose gradients are added up; at most one per window.
    """

    def __init__(self, accumulation_steps: int = 1) -> None:
        self._accumulation_steps = accumulation_steps

    def check(self, model: Any, compute: Collection[str]) -> None:
        """Raises if the model or an option of a step does not allow this division.

        Raises:
            ConfigurationError: it does not.
        """

    def parts(self, batch: Tensor) -> Iterator[tuple[Tensor, float]]:
        """The parts of a batch, and their share of its windows; everything else that is asked is about the last one."""
        for part in batch.tensor_split(self._accumulation_steps):
            yield part, len(part) / len(batch)

    def pooled(self, total: Tensor) -> Tensor:
        """This process's share, by its windows, of a sum over the windows of a part."""
        return total

    def matching(self, function: Matching) -> Matching:
        """The distance of features, normalised by the targets of a whole part where it is relative."""
        return function

    def draws(self) -> AbstractContextManager[Any]:
        """A context in which noise is drawn for the rows of a whole part."""
        return nullcontext()

    def collect(self, gradients: Sequence[Tensor], logged: dict[str, Tensor]) -> dict[str, Tensor]:
        """Completes the gradients, in place, and returns the complete logged values."""
        return logged


@dataclass(frozen=True)
class _Portion:
    """The windows of one worker in a part: rows ``start`` to ``stop`` of its ``size``."""

    start: int
    stop: int
    size: int

    @property
    def share(self) -> float:
        return (self.stop - self.start) / self.size


class SharedDivision(Division):
    """The windows of one worker of several; batches are given without those of the others.

    Args:
        group: the workers.
        batch: windows of the whole batch.
        accumulation_steps: parts; every worker has at least one window in each.
    """

    def __init__(self, group: WorkerGroup, batch: int, accumulation_steps: int) -> None:
        super().__init__(accumulation_steps)
        self._group, self._batch = group, batch
        every = torch.arange(batch)
        self._portions, rows = [], []
        for part in every.tensor_split(accumulation_steps):
            own = part.tensor_split(group.size)[group.rank]
            start = int(own[0] - part[0])
            self._portions.append(_Portion(start, start + len(own), len(part)))
            rows.append(own)
        self._portion = self._portions[0]
        self.rows: list[int] = torch.cat(rows).tolist()
        """The windows of this worker, as rows of the whole batch."""

    def check(self, model: Any, compute: Collection[str]) -> None:
        """Raises if the steps of several workers would not be those of one.

        Raises:
            ConfigurationError: a part of the model needs the whole batch at once, or an option a single process.
        """
        reason = needs_whole_batch(model) or " and ".join(sorted(ONE_WORKER_OPTIONS & set(compute)))
        if reason:
            raise ConfigurationError(
                f"{self._group.size} workers cannot compute this step: {reason} requires a single one",
                where="workers",
                fix="leave out workers, or set workers: 1",
            )

    def parts(self, batch: Tensor) -> Iterator[tuple[Tensor, float]]:
        """This worker's windows of each part, and their share of the whole batch."""
        sizes = [portion.stop - portion.start for portion in self._portions]
        for portion, part in zip(self._portions, torch.split(batch, sizes), strict=True):
            self._portion = portion
            yield part, len(part) / self._batch

    def pooled(self, total: Tensor) -> Tensor:
        """This worker's share, by its windows, of the sum of a total over all workers."""
        return self._group.add_up(total) * self._portion.share

    def matching(self, function: Matching) -> Matching:
        """A relative distance normalised by the targets of all workers."""
        values = getattr(function, "keywords", {})
        if not values.get("relative"):
            return function
        square = values.get("norm") == "L2"

        def of_all(target: Tensor, value: Tensor) -> Tensor:
            size = (target * target if square else target.abs()).mean()
            return function(target, value) * (size / self._group.add_up(size * self._portion.share))

        return of_all

    def draws(self) -> AbstractContextManager[Any]:
        """A context in which ``torch.randn_like`` and ``torch.rand_like`` draw for all workers and return this one's rows."""
        return _OwnRows(self._portion)

    def collect(self, gradients: Sequence[Tensor], logged: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds up the gradients, in place, and the logged values of all workers."""
        vector_to_parameters(self._group.add_up(parameters_to_vector(gradients)), gradients)
        values = self._group.add_up(torch.stack(list(logged.values())))
        return dict(zip(logged, values.unbind(), strict=True))


class _OwnRows(TorchFunctionMode):
    def __init__(self, portion: _Portion) -> None:
        super().__init__()
        self._portion = portion

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own, kwargs = self._portion, kwargs or {}
        if func not in (torch.randn_like, torch.rand_like) or len(args[0]) != own.stop - own.start:
            return func(*args, **kwargs)
        # The order in which numbers fill a tensor follows its strides, so these stay as they are.
        one, strides = args[0][0], args[0].stride()[1:]
        extent = 1 + sum((size - 1) * stride for size, stride in zip(one.shape, strides, strict=True))
        like = torch.empty_strided((own.size, *one.shape), (extent, *strides), dtype=one.dtype, device=one.device)
        return func(like, *args[1:], **kwargs)[own.start : own.stop]


def needs_whole_batch(model: Any) -> str:
    """What of a model computes with statistics of the whole batch that workers would not share; empty if nothing does.

    Args:
        model: a ``rave.RAVE``.
    """
    blocks, core = rave_module("blocks"), rave_module("core")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return "batch normalisation"
    if isinstance(model.encoder, blocks.DiscreteEncoder):
        return "a discrete encoder"
    if isinstance(model.encoder, blocks.WasserteinEncoder):
        return "a Wasserstein encoder"
    if not (is_lean(model.audio_distance) and is_lean(model.multiband_audio_distance)):
        return "a distance other than that of plain spectrograms"
    function = model.feature_matching_fun
    plain = function.func if isinstance(function, functools.partial) else function
    return "" if plain is core.mean_difference else "another distance of features"
