"""Conversion of a small corpus in this process, with the same code and the same bytes as on Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psutil
import torch

from rave_dist.allocator import holding_freed_memory
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, in_groups
from rave_dist.conversion.loading import MODELS_SHARE, load_converters, memory_for
from rave_dist.conversion.several_files import attempt_all
from rave_dist.errors import ConversionError
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store


def convert_all(job: Job) -> Iterator[Outcome]:
    """Converts a job's sources, on a GPU several at once.

    An unexpected error is a failed item, as on Ray. A crash in a native library ends the command; the same command resumes,
    and ``--workers 1`` converts in a separate process.

    Raises:
        ConversionError: the model cannot be loaded, or the device is out of memory.
        StoreError: OUTPUT or the store cannot be used.
    """
    if not job.to_do:
        return
    threads = torch.get_num_threads()
    try:
        with holding_freed_memory():
            for group in in_groups(job, MODELS_SHARE * psutil.virtual_memory().available):
                converters = load_converters(group.store, group.cards, trust=group.trust)
                yield from attempt_all(group, group.to_do, converters)
    finally:
        torch.set_num_threads(threads)


def load_all(store: Store, cards: Sequence[ModelCard], *, trust: bool = False) -> dict[int, Converter]:
    """Loads models that stay loaded, by their positions.

    Raises:
        ConversionError: a model cannot be loaded, or they do not fit in memory together.
        StoreError: the store cannot be used.
    """
    needed = sum(map(memory_for, cards))
    if len(cards) > 1 and needed > MODELS_SHARE * psutil.virtual_memory().available:
        raise ConversionError(
            f"{len(cards)} models do not fit in memory together", where=store.uri, fix="name fewer models, in several commands"
        )
    return load_converters(store, dict(enumerate(cards)), trust=trust)
