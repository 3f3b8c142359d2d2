"""Estimates the duration of a conversion in one process, before the model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import AudioSource
from rave_dist.conversion.job import Job
from rave_dist.errors import AudioError, StoreError
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.schemes import is_remote

MOMENT_SECONDS = 60.0
"""Conversions shorter than this do not use Ray, whose start and end take about ten seconds."""

_SPEED = 4.0
"""Seconds of one channel at 44.1 kHz per CPU-second, for the largest stock configurations on a slow CPU."""

_MOST_FILES = 200  # number of files whose headers are read
_LEAST_BYTES_PER_SECOND = 8_000  # 64 kbit/s: assumed for sources without a length in their headers, and for remote ones


@dataclass(frozen=True)
class Length:
    """The length of a source and its channels."""

    seconds: float
    channels: int = 1


def takes_a_moment(parameters: ConversionParameters, work: Iterable[tuple[Length, Sequence[ModelCard]]]) -> bool:
    """Whether one process converts sources within `MOMENT_SECONDS`; stops reading once it is exceeded.

    Args:
        parameters: of the conversions.
        work: the length of each source, and the models that convert it.
    """
    left = MOMENT_SECONDS
    for length, cards in work:
        for card in cards:
            rows = -(-(parameters.channels or length.channels) // card.channels)
            left -= rows * length.seconds * card.sample_rate / 44_100 / _SPEED
        if left < 0:
            return False
    return True


def is_small(job: Job) -> bool:
    """Whether the remaining work is little enough for one process."""
    if len(job.to_do) > _MOST_FILES:
        return False
    cards = ([job.plans[number].card for number in work.plans] for work in job.to_do)
    lengths = _lengths(work.task.source for work in job.to_do)
    return takes_a_moment(job.plans[0].parameters, zip(lengths, cards, strict=True))


def _lengths(sources: Iterable[AudioSource]) -> Iterator[Length]:
    for source in sources:
        by_size = Length(source.bytes / _LEAST_BYTES_PER_SECOND)
        if is_remote(source.uri):
            yield by_size
            continue
        try:
            with open_audio(source.uri) as decoder:
                samples = decoder.declared_samples
                yield by_size if samples is None else Length(samples / decoder.sample_rate, decoder.channels)
        except (AudioError, StoreError):
            yield Length(0.0)  # the conversion will fail at once, with the reason
