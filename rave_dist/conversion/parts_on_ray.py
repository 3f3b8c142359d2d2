"""Long files on Ray: one process reads a file and writes its output, all workers play its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, Work
from rave_dist.conversion.parts import Parts, PartsConverter, write_part
from rave_dist.conversion.stream import Played, Playing
from rave_dist.conversion.tasks_on_ray import DIED_TWICE, in_tasks, load_here, run, unpack
from rave_dist.errors import AudioError, RaveDistError

_FILES_AT_ONCE = 2  # while one is inspected, the parts of the other are played
_AHEAD = 2  # parts for each worker, so that none waits for the next part


def convert_in_parts(job: Job, works: Sequence[Work], pool: int, resources: dict[str, Any]) -> Iterator[Outcome]:
    """Converts long files; a killed worker, reader or command loses only the parts that are being played.

    Args:
        job: of the work.
        works: the files.
        pool: number of workers.
        resources: of each worker, for Ray.
    """
    if not works:
        return
    # Both begin again in another process when theirs dies; a part that ends three processes is the file's failure.
    player = ray.remote(max_restarts=-1, max_task_retries=2, **resources)(_Player)
    players: list[Any] = [player.remote(job) for _ in range(pool)]
    read = ray.remote(num_cpus=0.01, max_retries=2)(_convert)
    try:
        yield from in_tasks(job, works, lambda work: read.remote(job, work, players), at_once=_FILES_AT_ONCE)
    finally:
        for each in players:
            ray.kill(each)


class _Player:
    """An actor with the models, which plays parts and keeps them in the store."""

    def __init__(self, job: Job) -> None:
        self._store = job.store
        self._converters: dict[int, Converter] | RaveDistError
        try:
            self._converters = load_here(job)
        except RaveDistError as error:
            self._converters = error  # an actor that fails to start would be restarted repeatedly

    def play(self, model: int, key: str, part: list[Chunk], playing: Playing) -> Played | RaveDistError:
        """The played part, or the error of this model or sound."""
        if isinstance(self._converters, RaveDistError):
            return self._converters
        try:
            played = self._converters[model].play_part(part, playing)
            write_part(self._store, key, played)
        except RaveDistError as error:
            return error
        return played


def _convert(job: Job, work: Work, players: list[Any]) -> bytes:
    """Reads a file, has its parts played, and writes its outputs; then the parts are removed."""
    turns = count()

    def play(model: int, key: str, part: list[Chunk], playing: Playing) -> Callable[[], Played]:
        player = players[next(turns) % len(players)]
        return partial(_result, player.play.remote(model, key, part, playing))

    ahead = max(2, -(-_AHEAD * len(players) // len(work.plans)))
    parts = {number: Parts(job.store, job.plans[number], work.task, job.chunk_seconds) for number in work.plans}
    converters = {
        number: PartsConverter(job.plans[number].card, job.store, parts[number], partial(play, number), ahead=ahead)
        for number in work.plans
    }
    packed = run(job, [work], converters)
    for number, outcome in zip(work.plans, unpack(packed), strict=True):
        if outcome.item.state != "failed":
            parts[number].delete()
    return packed


def _result(reference: Any) -> Played:
    try:
        played: Played | RaveDistError = ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except RayError as error:
        raise AudioError(DIED_TWICE.what, fix=DIED_TWICE.fix) from error
    if isinstance(played, RaveDistError):
        raise played
    return played
