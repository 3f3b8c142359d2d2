"""Conversion of a small corpus in this process, with the same code and the same bytes as on Ray."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Task
from rave_dist.conversion.item import Outcome, convert_item
from rave_dist.conversion.job import OUT_OF_MEMORY, Job, give_up, internal_error, load_converter
from rave_dist.errors import RaveDistError

_UNFORESEEN = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""Errors that libraries raise for a single file; the others are still converted."""


def convert_all(job: Job) -> Iterator[Outcome]:
    """Converts a job's tasks in turn.

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
        converter = load_converter(job, device="cuda" if torch.cuda.is_available() else "cpu")
        for task in job.to_do:
            yield _convert(job, task, converter)
    finally:
        torch.set_num_threads(threads)


def _convert(job: Job, task: Task, converter: Converter) -> Outcome:
    try:
        return convert_item(job.store, job.plan, task, converter, chunk_seconds=job.chunk_seconds)
    except RaveDistError:
        raise
    except MemoryError:
        return give_up(job, task, OUT_OF_MEMORY)
    except _UNFORESEEN as error:
        return give_up(job, task, internal_error(error))
