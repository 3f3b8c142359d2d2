"""Conversion of a small corpus in this process, with the same code and the same bytes as on Ray."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import torch

from rave_dist.conversion.convert import MODELS_SHARE
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, attempt, in_groups, load_converters


def convert_all(job: Job) -> Iterator[Outcome]:
    """Converts a job's sources in turn.

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
        for group in in_groups(job, MODELS_SHARE * psutil.virtual_memory().available):
            converters = load_converters(group, device="cuda" if torch.cuda.is_available() else "cpu")
            for work in group.to_do:
                yield from attempt(group, work, converters)
    finally:
        torch.set_num_threads(threads)
