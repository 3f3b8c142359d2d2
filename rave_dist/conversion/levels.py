"""Levels of a recording and of its conversion, and what they say: silent or clipped output of a recording that is neither.

Silence is judged by the steps of 16 bits, the depth that most outputs are written with and all are played with, also in a file
of 24 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.metrics.levels import Levels
from rave_dist.audio.types import Audio
from rave_dist.records import Problem
from rave_dist.records.verdict import SILENT_PEAK_DBFS

SILENT_PEAK = 10 ** (SILENT_PEAK_DBFS / 20)
"""A sound whose peak is below it is silent: the bound of a model's verdict."""


class Peaks:
    """Peak of each channel, and samples over full scale, of audio that is not limited to full scale.

    Attributes:
        samples: per channel.
        over: samples over full scale, of all channels.
        over_samples: time at which any channel is over full scale, in samples.
    """

    def __init__(self) -> None:
        self.samples = self.over = self.over_samples = 0
        self._peaks: NDArray[np.float32] = np.zeros(0, np.float32)

    def add(self, block: Audio) -> None:
        """Adds the next block, [C, T]."""
        if not block.size:
            return
        magnitudes = np.abs(block)
        peaks = magnitudes.max(axis=1)
        self._peaks = np.maximum(self._peaks, peaks) if self.samples else peaks
        self.samples += block.shape[1]
        if peaks.max() > 1:
            over = magnitudes > 1
            self.over += int(np.count_nonzero(over))
            self.over_samples += int(np.count_nonzero(over.any(axis=0)))

    @property
    def peak(self) -> float:
        """Of all channels; full scale 1."""
        return float(self._peaks.max(initial=0))

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Whether each channel is silent. Output: [C]."""
        return self._peaks < SILENT_PEAK


class SourceLevels:
    """Levels of a recording, before and after its channels are mixed or repeated for the conversion.

    Args:
        subtype: its encoding.
        channels: of the conversion.
    """

    def __init__(self, subtype: str, channels: int) -> None:
        self.recorded, self.mixed = Peaks(), Peaks()
        self._levels = Levels(subtype)
        self._channels = channels

    def add(self, block: Audio) -> None:
        """Adds the next block, [C, T]."""
        self.recorded.add(block)
        self._levels.add_decoded(block)
        if block.shape[0] != self._channels:
            self.mixed.add(map_channels(block, self._channels))

    def of(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        """The blocks, [C, T], each added before it is given."""
        for block in blocks:
            self.add(block)
            yield block

    @property
    def played(self) -> Peaks:
        """What the model receives."""
        return self.mixed if self.mixed.samples else self.recorded

    @property
    def is_clipped(self) -> bool:
        """Whether it was clipped when it was recorded; floats above full scale were not."""
        return self._levels.is_clipped and self.recorded.peak <= 1


def find_silence(source: SourceLevels, output: Peaks) -> Problem | None:
    """The problem of an output with silent channels where the recording has sound."""
    if source.recorded.silent.all() or not output.samples:
        return None
    if source.played.silent.all():
        return Problem(what="the channels cancel each other in the mix, so that it is silent", fix="convert without --channels")
    lost = output.silent & ~source.played.silent
    if not lost.any():
        return None
    what = "the output is silent" if lost.all() or output.silent.all() else f"silent in the output: {_channels(lost)}"
    return Problem(
        what=f"{what}, the recording is not (peak {decibels(source.recorded.peak):.1f} dBFS)",
        fix="convert with another model, or train this one longer: it has not learnt to answer such sounds",
    )


def find_clipping(source: SourceLevels, output: Peaks, sample_rate: int) -> Problem | None:
    """The problem of a clipped output of a recording that is not clipped."""
    if source.is_clipped or not Levels.counts_as_clipped(output.over, output.samples * output.silent.size):
        return None
    seconds, excess, over = output.over_samples / sample_rate, decibels(output.peak), decibels(source.recorded.peak)
    fix = f"to avoid it, convert a copy of the recording that is at least {math.ceil(excess)} dB quieter"
    if over > 0:
        fix = f"convert a quieter copy: the recording itself exceeds full scale by {over:.1f} dB"
    return Problem(
        what=f"the output was clipped: {output.over:,} samples in {seconds:.3f} s were up to {excess:.1f} dB over full scale",
        fix=fix,
    )


def decibels(magnitude: float) -> float:
    """A level in dB relative to full scale."""
    return 20 * math.log10(magnitude) if magnitude > 0 else -math.inf


def _channels(which: NDArray[np.bool_]) -> str:
    numbers = [str(index + 1) for index in np.flatnonzero(which)]
    return f"channel {numbers[0]}" if len(numbers) == 1 else f"channels {', '.join(numbers)}"
