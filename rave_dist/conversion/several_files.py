"""Files of a conversion in one process: one after another, or where the device plays batches, several at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import count

from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, Work, attempt
from rave_dist.conversion.stream import StreamConverter


def attempt_all(job: Job, works: Sequence[Work], converters: Mapping[int, StreamConverter]) -> Iterator[Outcome]:
    """Converts sources as `job.attempt` does; in any order where several are converted at once.

    Args:
        job: of the work.
        works: the sources.
        converters: by their numbers; those of `load_converters` share their batches.

    Raises:
        RaveDistError: an error that concerns every source.
        RuntimeError: the device no longer works in this process.
    """
    batches = next((converter.batches for converter in converters.values()), None)
    if batches is None or batches.threads == 1 or len(works) == 1:
        for work in works:
            yield from attempt(job, work, converters)
        return
    threads, ended = min(batches.threads, len(works)), count(1)

    def leave(future: Future[list[Outcome]]) -> None:
        if next(ended) > len(works) - threads:  # nothing is left for its thread
            batches.leave()

    with ThreadPoolExecutor(threads, thread_name_prefix="conversion") as pool:
        try:
            batches.join(threads)
            futures = [pool.submit(attempt, job, work, converters) for work in works]
            for future in futures:
                future.add_done_callback(leave)
            for future in as_completed(futures):
                yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            batches.stop()
            raise
