"""The further workers of a run with several: they compute their windows of each step as the first one tells them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rave_dist.records import TrainingSpec
from rave_dist.training.assembly import RunParts, assemble_further
from rave_dist.training.data.loader import PcmSegment
from rave_dist.training.trainer import step_too_large
from rave_dist.training.worker_group import WorkerGroup, WorkerLostError

logger = logging.getLogger(__name__)


def follow(spec: TrainingSpec, read: Callable[[], Sequence[PcmSegment]], *, group: WorkerGroup) -> RunParts | None:
    """Computes steps until the first worker ends: after the run, after an error that it has recorded, or because it died.

    Args:
        spec: the run.
        read: reads the training audio; called when the first worker has done so.
        group: the workers.

    Returns:
        The run as this worker last had it; None if the first worker ended before it began.

    Raises:
        InsufficientMemoryError: the memory of this worker does not suffice.
    """
    segments: Sequence[PcmSegment] = ()
    run: RunParts | None = None
    try:
        while True:
            what, value = group.receive()
            if what == "begin":
                run = None  # frees its memory before the next one needs it
                segments = segments or read()
                run = assemble_further(spec, segments, value, group=group)
                continue
            if what == "end":
                break
            assert run is not None
            if what == "reschedule":
                run.training_step.reschedule(**value)
            else:
                run.training_step(run.windows.next_batch(), value)
    except WorkerLostError as error:
        logger.info("worker %d of %s ends: %s", group.rank, spec.instrument, error)
    except (MemoryError, RuntimeError) as error:
        parts = 1 if run is None else run.state.accumulation_steps
        too_large = step_too_large(error, spec, group.device, parts)
        if too_large is None:
            raise
        raise too_large from error
    return run
