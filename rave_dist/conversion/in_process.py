"""A small corpus through a model in this very process, by the same code and to the same bytes as on Ray."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Task
from rave_dist.conversion.item import Outcome, convert_item
from rave_dist.conversion.job import OUT_OF_MEMORY, Job, give_up, load_converter, unforeseen
from rave_dist.errors import RaveDistError

_UNFORESEEN = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What libraries raise for one strange file, which stops no others."""


def convert_all(job: Job) -> Iterator[Outcome]:
    """Converts a job's tasks one after another.

    A file that the code did not foresee is a failed item, as on Ray. What ends the process, such as a crash in a native
    library, ends the command; the same command resumes, and ``--workers 1`` gives the files a process of their own.

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
        return give_up(job, task, unforeseen(error))
