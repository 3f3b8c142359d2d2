"""Conversions of a manifest: all are checked before the first begins, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from rave_dist.archives.outcome import check_page, write_outcome
from rave_dist.archives.place import converting
from rave_dist.errors import ConversionError, RaveDistError
from rave_dist.library.conversions import Conversion
from rave_dist.progress import SILENT, Progress
from rave_dist.records import Controls, ConversionRecord
from rave_dist.storage.store import Store

if TYPE_CHECKING:
    from rave_dist.conversion.corpus import Plan
    from rave_dist.conversion.job import Job


@dataclass(frozen=True)
class _Planned:
    """A conversion of the manifest, and its plan for each model."""

    conversion: Conversion
    plans: tuple[Plan, ...]

    @property
    def recordings(self) -> Hashable:
        """What is read: conversions in which this is equal read their recordings together."""
        plan = self.plans[0]
        reading = plan.parameters.model_copy(update={"seed": 0, "latent_noise": 0.0, "controls": Controls()})
        return self.conversion.inputs, reading.model_dump_json(), plan.output.uri if plan.is_file else ""


def convert_batch(
    store: Store,
    conversions: Sequence[Conversion],
    *,
    chunk_seconds: float,
    workers: int | None = None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> tuple[tuple[ConversionRecord, ...], tuple[RaveDistError, ...]]:
    """Converts what a manifest lists; conversions that differ only in models, seed, noise, latents and OUTPUT share one pass.

    Args:
        store: of the models, the journals and the records.
        conversions: from `rave_dist.library.conversions.read_conversions`.
        chunk_seconds: seconds of audio in a model at once.
        workers: recordings converted at once, on Ray.
        trust: load model files with operators that no export has.
        progress: receives the number of finished outputs.

    Returns:
        The records, in the manifest's order, and the errors of conversions that could not be done.

    Raises:
        RaveDistError: before anything is converted: a conversion cannot be done, or two have the same OUTPUT; Ray does not
            answer.
    """
    for conversion in conversions:
        with _naming(conversion):
            check_page(conversion.page)
    progress.stage("listing recordings")
    from rave_dist.conversion.job import begin, finish

    planned = _plan(store, conversions, chunk_seconds, progress)
    groups: dict[Hashable, list[_Planned]] = {}
    for each in planned:
        groups.setdefault(each.recordings, []).append(each)
    report = partial(progress.advance, unit="conversions")
    progress.stage("looking for finished ones")
    jobs: list[tuple[Job, list[_Planned]]] = []
    for group in groups.values():
        with _naming(*(each.conversion for each in group)):
            plans = [plan for each in group for plan in each.plans]
            job = begin(store, plans, chunk_seconds=chunk_seconds, workers=workers, trust=trust, progress=report)
            jobs.append((job, group))
    found: dict[str, ConversionRecord] = {}
    errors: list[RaveDistError] = []
    with converting([job for job, _ in jobs], workers=workers, progress=progress) as convert_all:
        for number, (job, group) in enumerate(jobs, 1):
            progress.stage(f"converting, {number} of {len(jobs)}" if len(jobs) > 1 else "converting")
            try:
                with _naming(*(each.conversion for each in group)):
                    records = {record.id: record for record in finish(job, convert_all(job), report)}
                    for each in group:
                        own = [records[plan.id] for plan in each.plans]
                        write_outcome(store, each.plans, own, page=each.conversion.page, progress=progress)
                    found |= records
            except RaveDistError as error:
                progress.say(str(error))
                errors.append(error)
    return tuple(found[plan.id] for each in planned for plan in each.plans if plan.id in found), tuple(errors)


def _plan(store: Store, conversions: Sequence[Conversion], chunk_seconds: float, progress: Progress) -> list[_Planned]:
    from rave_dist.audio.io.sources import find_sources
    from rave_dist.conversion.corpus import plan_conversions
    from rave_dist.conversion.stream import chunk_samples
    from rave_dist.registry.store import find_all

    find = cache(partial(find_sources, listed=partial(progress.advance, total=0, unit="recordings")))
    planned: list[_Planned] = []
    outputs: dict[str, str] = {}
    for each in conversions:
        with _naming(each):
            cards = find_all(store, each.models)
            plans = plan_conversions(cards, each.inputs, each.output, each.parameters, apart=each.models is None, find=find)
            for plan in plans:
                chunk_samples(plan.card, chunk_seconds)
                place = plan.output.address(plan.tasks[0].output) if plan.is_file else plan.output.uri
                if place in outputs:
                    raise ConversionError(
                        f"the conversion in {outputs[place]} has the same OUTPUT", where=place, fix="choose another output"
                    )
                outputs[place] = _line(each)
            planned.append(_Planned(each, tuple(plans)))
    return planned


@contextmanager
def _naming(*conversions: Conversion) -> Iterator[None]:
    """Errors name the lines of the manifest."""
    try:
        yield
    except RaveDistError as error:
        where = " and ".join([conversions[0].where, *(_line(each) for each in conversions[1:])])
        raise type(error)(error.what, where=f"{where}: {error.where}" if error.where else where, fix=error.fix) from error


def _line(conversion: Conversion) -> str:
    return conversion.where.rpartition(", ")[2]
