"""Where conversions run: in this process where each takes about a minute, otherwise on Ray, which is started once for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rave_dist.progress import Progress

if TYPE_CHECKING:
    from rave_dist.conversion.item import Outcome
    from rave_dist.conversion.job import Job


@contextmanager
def converting(jobs: Sequence[Job], *, workers: int | None, progress: Progress) -> Iterator[Callable[[Job], Iterator[Outcome]]]:
    """What converts jobs in a context.

    Args:
        jobs: all that will be converted.
        workers: recordings converted at once; a number of them, or ``RAY_ADDRESS``, selects Ray.
        progress: receives the stage of Ray's start.

    Raises:
        ClusterError: Ray does not answer.
    """
    from rave_dist.conversion.estimate import is_small

    if not workers and not os.environ.get("RAY_ADDRESS") and all(map(is_small, jobs)):
        from rave_dist.conversion import in_process

        yield in_process.convert_all
        return
    progress.stage("starting Ray")  # before its import, which takes seconds
    from rave_dist.cluster import connected

    with connected(say=progress.say):
        from rave_dist.conversion import on_ray

        yield partial(on_ray.convert_all, workers=workers)
