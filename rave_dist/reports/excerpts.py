"""Excerpts of recordings and their conversions: the same seconds of each, at the same loudness.

Conversion neither delays nor stretches, so the same seconds of source and result are the same moment. The excerpt is the
stretch of the source with the most energy, because the quiet parts of field recordings say little about a model; it is looked
for in the first minutes, so that a recording of a day costs no more than one of an hour.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.io.sources import AudioSource, partial_copy
from rave_dist.audio.metrics.loudness import SILENCE_LUFS, loudness
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError
from rave_dist.storage.schemes import is_remote, split
from rave_dist.storage.store import Store

EXCERPT_SECONDS = 5.0
LISTENING_LUFS = -18.0
"""The loudness at which a row is played; lower where one of its sounds would exceed full scale."""

_SEARCH_SECONDS = 300
_STEPS_PER_SECOND = 10
_PEAK = 10 ** (-1 / 20)  # MP3 needs some room above the samples
_FADE_SECONDS = 0.01
_LEAST_RATE = 8000  # of MP3 and of the filters that measure loudness


@dataclass(frozen=True)
class Excerpt:
    """Some seconds of a recording.

    ``sound`` is [channels, samples], full scale 1; ``start`` is its place in seconds, ``lufs`` its loudness (BS.1770), -70 for
    silence.
    """

    sound: Audio
    sample_rate: int
    start: float
    lufs: float

    @property
    def is_silent(self) -> bool:
        """Whether its loudness cannot be matched."""
        return self.lufs <= SILENCE_LUFS

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.sound.shape[1] / self.sample_rate)


def loudest_start(uri: str) -> float:
    """The place, in seconds, of the stretch with the most energy; a multiple of 0.1 s.

    Raises:
        AudioError: nothing of it can be decoded.
        StoreError: it cannot be read.
    """
    energies: list[float] = []
    with _opened(uri) as decoder:
        step = max(1, decoder.sample_rate // _STEPS_PER_SECOND)
        for block in _readable(decoder):
            energies += np.add.reduceat(np.square(block).sum(axis=0), np.arange(0, block.shape[1], step)).tolist()
            if len(energies) >= _SEARCH_SECONDS * _STEPS_PER_SECOND:
                break
    width = round(EXCERPT_SECONDS * _STEPS_PER_SECOND)
    if len(energies) <= width:
        return 0.0
    return int(np.convolve(energies, np.ones(width), mode="valid").argmax()) / _STEPS_PER_SECOND


def excerpt(uri: str, start: float) -> Excerpt:
    """The seconds of a recording that begin at a place, with short fades; shorter at its end.

    Raises:
        AudioError: nothing of it can be decoded, or it ends before.
        StoreError: it cannot be read.
    """
    pieces: list[Audio] = []
    with _opened(uri) as decoder:
        rate = decoder.sample_rate
        first = round(start * rate)
        last = first + round(EXCERPT_SECONDS * rate)
        position = 0
        for block in _readable(decoder):
            pieces.append(block[:, max(0, first - position) : max(0, last - position)])
            position += block.shape[1]
            if position >= last:
                break
    sound = np.concatenate(pieces, axis=1) if pieces else np.zeros((1, 0), np.float32)
    if not sound.shape[1]:
        raise AudioError(f"it ends before {start:g} s", where=uri)
    if rate < _LEAST_RATE:
        channels = sound.shape[0]
        blocks = resample(iter([sound]), rate=rate, new_rate=_LEAST_RATE, channels=channels)
        sound, rate = np.concatenate(list(blocks), axis=1), _LEAST_RATE
    return Excerpt(sound, rate, start, loudness(sound, rate))


def match_levels(excerpts: Sequence[Excerpt]) -> list[float]:
    """Gains in dB that give all audible excerpts the same loudness, none of them above full scale; 0 for silent ones."""
    audible = [each for each in excerpts if not each.is_silent]
    room = (each.lufs - 20 * math.log10(float(np.abs(each.sound).max()) / _PEAK) for each in audible)
    target = min([LISTENING_LUFS, *room])
    return [0.0 if each.is_silent else target - each.lufs for each in excerpts]


def played(each: Excerpt, gain_db: float) -> Audio:
    """An excerpt as it is played: with its gain and short fades."""
    sound = each.sound * np.float32(10 ** (gain_db / 20))
    fade = min(sound.shape[1] // 2, round(_FADE_SECONDS * each.sample_rate))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    sound[:, :fade] *= ramp
    sound[:, sound.shape[1] - fade :] *= ramp[::-1]
    return sound


@contextmanager
def _opened(uri: str) -> Iterator[Decoder]:
    """A recording, of which a remote one is fetched only as far as it is read."""
    if not is_remote(uri):
        with open_audio(Path(uri)) as decoder:
            yield decoder
        return
    scheme, container, key = split(uri)
    entry = Store(f"{scheme}://{container}").stat(key)
    source = AudioSource(uri, entry.bytes, f"{entry.bytes}-{entry.tag}", os.path.basename(key))
    with partial_copy(source) as path, open_audio(path) as decoder:
        yield decoder


def _readable(decoder: Decoder) -> Iterator[Audio]:
    """The blocks of a recording up to its damage.

    Raises:
        AudioError: nothing of it can be decoded.
    """
    read = 0
    try:
        # A multiple of a step of the search, so that the steps of all blocks are alike.
        for block in decoder.blocks(seconds=_block_seconds(decoder)):
            read += block.shape[1]
            yield block
    except AudioError:
        if not read:
            raise


def _block_seconds(decoder: Decoder) -> float:
    """One second in whole steps of the search."""
    return max(1, decoder.sample_rate // _STEPS_PER_SECOND) * _STEPS_PER_SECOND / decoder.sample_rate
