"""Conversion of a small corpus in this process, with the same code and the same bytes as on Ray."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, attempt, load_converter


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
            yield attempt(job, task, converter)
    finally:
        torch.set_num_threads(threads)
