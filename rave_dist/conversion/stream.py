"""A recording as a stream through a model: any sample rate, channel count and length, in constant memory.

The command and the service share this code, so that they produce the same samples. Steps, each a stream:

    blocks -> channels -> model's rate -> chunks with context -> model -> requested rate -> exact length

The result does not depend on the block size, and on the chunk size only by rounding (about 1e-6 of its peak): chunks
include the model's context, and the noise is a function of seed, channel and absolute position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.chunks import Chunk, cut
from rave_dist.audio.dsp.resample import resample, resampled_length
from rave_dist.audio.metrics.familiarity import Familiarity
from rave_dist.audio.types import Audio
from rave_dist.conversion.batches import Batches
from rave_dist.conversion.levels import Peaks
from rave_dist.errors import ConversionError
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_LATENT_NOISE, DEFAULT_SEED
from rave_dist.records import Controls, ModelCard

CHUNK_BYTES = 32 << 20  # of which about ten copies exist at once


class Playing(NamedTuple):
    """How a model plays: the seed and the level of the noise around the latents, and what is changed inside the model."""

    seed: int
    latent_noise: float
    controls: Controls = Controls()

    def check(self) -> None:
        """Refuses an impossible level.

        Raises:
            ConversionError: it is negative, NaN or infinite.
        """
        if not 0 <= self.latent_noise < math.inf:
            raise ConversionError("the level of a noise is negative, NaN or infinite", fix="give 0 or more; 1 is as trained")


class Played(NamedTuple):
    """What a model makes of a stretch: the sound [C, T], and its latents [rows, latents, frames] where they are scored."""

    audio: Audio
    latents: Audio | None


class StreamConverter(ABC):
    """Converts streams through a model, wherever the model is.

    Attributes:
        card: the model's card.
        batches: in which it plays, if it plays in this process.
    """

    card: ModelCard
    batches: Batches | None

    def convert(
        self,
        blocks: Iterable[Audio],
        *,
        sample_rate: int,
        channels: int,
        seed: int = DEFAULT_SEED,
        noise: float = 1.0,
        latent_noise: float = DEFAULT_LATENT_NOISE,
        temperature: float = 1.0,
        latents: Mapping[int, tuple[float, float]] = MappingProxyType({}),
        out_sample_rate: int | None = None,
        out_channels: int | None = None,
        chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    ) -> Conversion:
        """Converts a stream of audio in constant memory.

        A mono model converts each channel on its own, with the noise of ``seed`` plus the channel's number. A stereo model
        converts channels in pairs; a channel without a partner is converted as both, and the two results are averaged. Where
        another channel count is requested, the source's channels are mixed down or repeated first.

        Input: [C, T] each, float32, full scale 1; T may vary.

        Output: [C, T] each, float32, within ±1; n samples become n, or at another sample rate
        n · out_sample_rate / sample_rate, rounded half up.

        Args:
            blocks: the audio, in order.
            sample_rate: of the blocks, in Hz.
            channels: of the blocks.
            seed: picks all noise.
            noise: level of the model's noise generator, if it has one; 0 leaves it out.
            latent_noise: level of the noise around the latents; 1 as RAVE and the streaming file play, 0 for their mean.
            temperature: factor on all latents, which for variational models lie around the mean of the training set.
            latents: (scale, bias) of single latents, which count from 1; applied after the temperature.
            out_sample_rate: of the result, in Hz; None keeps the source's.
            out_channels: of the result; None keeps the source's.
            chunk_seconds: seconds of audio in the model at once; less where all channels together exceed 32 MiB.

        Returns:
            An iterator of blocks, which counts samples and clipped samples.

        Raises:
            ConversionError: chunks shorter than one frame of the model, a rate or channel count below 1, or a level or change
                that the model does not have.
            AudioError: while iterating: what ``blocks`` raise, or the model's result is NaN or infinite.

        Example:
            >>> import numpy as np
            >>> blocks = (np.zeros((1, 4096), dtype=np.float32) for _ in range(10))
            >>> conversion = rd.Converter.load("store", "rebana").convert(blocks, sample_rate=44100, channels=1)
            >>> sum(block.shape[1] for block in conversion), conversion.clipped_samples
            (40960, 0)
        """
        if min(sample_rate, channels, out_sample_rate or 1, out_channels or 1) < 1:
            raise ConversionError("sample rates and channel counts start at 1", fix="correct the rate or the channels")
        core = core_samples(self.card, out_channels or channels, chunk_seconds)
        controls = Controls(noise=noise, temperature=temperature, latents=dict(latents))
        controls.check(self.card.latents, where=self.card.reference)
        playing, card, known = Playing(seed, latent_noise, controls), self.card, self.card.familiarity
        playing.check()
        meter = None
        if known is not None:
            meter = Familiarity(known, sample_rate=card.sample_rate, hop=card.hop, width=card.channels)
        rates = (sample_rate, out_sample_rate or sample_rate)
        return Conversion(self._stream(blocks, playing, core, meter, channels=out_channels or channels, rates=rates), meter)

    @abstractmethod
    def _play_all(self, chunks: Iterator[Chunk], playing: Playing) -> Iterator[Played]:
        """What the model makes of the cores of chunks, in order."""

    def _stream(
        self,
        blocks: Iterable[Audio],
        playing: Playing,
        core: int,
        meter: Familiarity | None,
        *,
        channels: int,
        rates: tuple[int, int],
    ) -> Iterator[Audio]:
        card = self.card
        received = 0

        def mapped() -> Iterator[Audio]:
            nonlocal received
            for block in blocks:
                received += block.shape[1]
                yield map_channels(block, channels)

        there = resample(mapped(), rate=rates[0], new_rate=card.sample_rate, channels=channels)
        chunks = cut(there if meter is None else meter.of(there), hop=card.hop, core=core, context=card.receptive_field)
        played = _measured(self._play_all(chunks, playing), meter)
        back = resample(played, rate=card.sample_rate, new_rate=rates[1], channels=channels)
        yield from of_length(back, lambda: resampled_length(received, *rates), channels=channels)


def of_length(blocks: Iterable[Audio], length: Callable[[], int], *, channels: int) -> Iterator[Audio]:
    """A stream that was resampled twice, cut or lengthened with zeros: both resamplers round, so it may be off by a sample.

    Args:
        blocks: [C, T] each.
        length: the exact length as far as it is known, in the end that of the whole.
        channels: C.
    """
    produced = 0
    for block in blocks:
        block = block[:, : max(0, length() - produced)]
        produced += block.shape[1]
        yield block
    if produced < length():
        yield np.zeros((channels, length() - produced), np.float32)


class Conversion(Iterator[Audio]):
    """The blocks of a converted recording, within ±1, with counts of the samples so far.

    ``samples`` per channel; ``clipped_samples`` over all channels; ``levels`` are those before clipping; ``familiarity`` is
    that of the source, if the model's card says what its training audio is like.
    """

    def __init__(self, blocks: Iterator[Audio], familiarity: Familiarity | None = None) -> None:
        self._blocks = blocks
        self.levels = Peaks()
        self.familiarity = familiarity

    @property
    def samples(self) -> int:
        """Samples per channel so far."""
        return self.levels.samples

    @property
    def clipped_samples(self) -> int:
        """Clipped samples of all channels so far."""
        return self.levels.over

    def unlimited(self) -> Iterator[Audio]:
        """The same blocks as they were before they are limited to full scale, counted likewise."""
        for block in self._blocks:
            self.levels.add(block)
            yield block

    def __next__(self) -> Audio:
        block = next(self._blocks)
        self.levels.add(block)
        return np.clip(block, -1, 1)


def _measured(played: Iterator[Played], meter: Familiarity | None) -> Iterator[Audio]:
    """The sound of the played parts, whose latents are measured."""

    def sound_of(part: Played) -> Audio:
        if meter is not None and part.latents is not None:
            meter.add_latents(part.latents)
        return part.audio

    yield from map(sound_of, played)  # holds no part while it waits
    if meter is not None:
        meter.finish()


def core_samples(card: ModelCard, channels: int, chunk_seconds: float) -> int:
    """The length of a chunk of this duration, and at most `CHUNK_BYTES`, a multiple of the model's frame.

    Raises:
        ConversionError: less than one frame.
    """
    return min(chunk_samples(card, chunk_seconds), max(1, CHUNK_BYTES // (4 * channels * card.hop)) * card.hop)


def chunk_samples(card: ModelCard, chunk_seconds: float) -> int:
    """The length of a chunk in samples at the model's rate, a multiple of its frame.

    Raises:
        ConversionError: less than one frame.
    """
    frames = int(chunk_seconds * card.sample_rate) // card.hop if math.isfinite(chunk_seconds) else 0
    if frames < 1:
        least = math.ceil(1000 * card.hop / card.sample_rate) / 1000
        raise ConversionError(
            f"a chunk of {chunk_seconds:g} s is shorter than one frame of this model",
            where=card.reference,
            fix=f"use {least} s or more; {DEFAULT_CHUNK_SECONDS:g} s suits most",
        )
    return frames * card.hop
