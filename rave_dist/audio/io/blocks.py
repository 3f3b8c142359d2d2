"""Parts of any length as blocks of one length, sample rate and channel count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError


def reblock(parts: Iterator[Audio], size: int) -> Iterator[Audio]:
    """Consecutive parts, float32 [channels, n], as blocks of ``size`` samples; only the last one is shorter.

    Raises:
        AudioError: of ``parts``, after the samples before it.
    """
    held: list[Audio] = []
    count = 0
    damage: AudioError | None = None
    while True:
        try:
            part = next(parts, None)
        except AudioError as error:
            damage = error
            break
        if part is None:
            break
        held.append(part)
        count += part.shape[1]
        if count >= size:
            joined = np.concatenate(held, axis=1)
            whole = count - count % size
            for start in range(0, whole, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            held, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)
    if damage is not None:
        raise damage


def conform(parts: Iterator[Audio], *, rate: int, new_rate: int, channels: int, new_channels: int) -> Iterator[Audio]:
    """Parts at one sample rate and channel count as parts at another; the same ones where nothing differs.

    Raises:
        AudioError: of ``parts``, after the samples before it.
    """
    damage: list[AudioError] = []

    def readable() -> Iterator[Audio]:
        try:
            yield from parts
        except AudioError as error:  # the resampler still holds samples from before the damage
            damage.append(error)

    fewer = min(channels, new_channels)
    mapped = (map_channels(part, fewer) for part in readable())
    for part in resample(mapped, rate=rate, new_rate=new_rate, channels=fewer):
        yield map_channels(part, new_channels)
    if damage:
        raise damage[0]


def cut(parts: Iterator[Audio], spans: Iterator[tuple[int, int | None]], start: int) -> Iterator[Audio]:
    """The samples inside spans, of consecutive parts [channels, n] whose first sample is number ``start``."""
    span = next(spans, None)
    for part in parts:
        stop = start + part.shape[1]
        while span is not None:
            first, last = span
            kept = part[:, max(0, first - start) : None if last is None else max(0, last - start)]
            if kept.shape[1]:
                yield kept
            if last is None or last > stop:
                break
            span = next(spans, None)
        start = stop
