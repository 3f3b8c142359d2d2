"""Files of a conversion in one process: one after another, or where the device plays batches, several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from rave_dist.conversion.batches import Batches, StoppedError
from rave_dist.conversion.convert import Converter
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
    batches = next((c.batches for c in converters.values() if isinstance(c, Converter)), None)
    if batches is None or batches.threads == 1 or len(works) == 1:
        for work in works:
            yield from attempt(job, work, converters)
        return
    left, ended = deque(works), SimpleQueue[list[Outcome] | Exception]()
    threads = min(batches.threads, len(works))
    with ThreadPoolExecutor(threads, thread_name_prefix="conversion") as pool:
        try:
            for _ in range(threads):
                pool.submit(_convert, job, left, converters, batches, ended)
            for _ in works:
                outcomes = ended.get()
                if isinstance(outcomes, Exception):
                    raise outcomes
                yield from outcomes
        except BaseException:
            left.clear()
            batches.stop()
            raise


def _convert(
    job: Job,
    left: deque[Work],
    converters: Mapping[int, StreamConverter],
    batches: Batches,
    ended: SimpleQueue[list[Outcome] | Exception],
) -> None:
    """In a thread: converts what is left."""
    with batches.member():
        while left:
            try:
                work = left.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                ended.put(attempt(job, work, converters))
            except StoppedError:
                return
            except Exception as error:  # noqa: BLE001 (raised again by `attempt_all`)
                ended.put(error)
                return
