"""Conversion of one recording: any sample rate, channel count and length, in constant memory.

The command and the service share this code, so that they produce the same samples. Steps, each a stream:

    blocks -> channels -> model's rate -> chunks with context -> model -> requested rate -> exact length

The result does not depend on the block size, and on the chunk size only by rounding (about 1e-6 of its peak): chunks
include the model's context, and the noise is a function of seed, channel and absolute position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.chunks import Chunk, cut
from rave_dist.audio.dsp.resample import resample, resampled_length
from rave_dist.audio.types import Audio
from rave_dist.conversion.levels import Peaks
from rave_dist.errors import AudioError, ConversionError
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_LATENT_NOISE, DEFAULT_SEED
from rave_dist.records import ModelCard
from rave_dist.registry.store import fetch, find
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

# Several channels at once use a GPU better; on a CPU they save nothing and cost memory.
_ROWS_AT_ONCE = {"cpu": 1, "cuda": 8}
MEMORY_PER_FILE_BYTE = 2
"""Bytes of memory that a loaded TorchScript needs for a byte of its file: weights, constants and code."""

MODELS_SHARE = 0.5
"""The part of memory that is used for models; the rest is for audio."""

_CHUNK_BYTES = 32 << 20  # of which about ten copies exist at once


class Converter:
    """A published model, ready to convert audio of any sample rate, channel count and length.

    Args:
        model_path: its offline TorchScript.
        card: its card.
        device: where it runs: ``cpu`` or ``cuda``.

    Raises:
        ConversionError: the file is not TorchScript, or cannot convert.

    Example:
        >>> converter = rd.Converter.load("store", "rebana")
        >>> converter.card.name, converter.device.type
        ('rebana', 'cpu')
    """

    def __init__(self, model_path: Path | str, card: ModelCard, *, device: str = "cpu") -> None:
        self.card = card
        self.device = torch.device(device)
        try:
            self._model = torch.jit.load(str(model_path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"not a TorchScript model ({str(error).splitlines()[0]})", where=card.reference, fix="publish the model again"
            ) from error
        if not hasattr(self._model, "convert"):
            raise ConversionError("this export has no convert method", where=card.reference, fix="publish the model again")
        if all(argument.name != "latent_noise" for argument in self._model.convert.schema.arguments):
            raise ConversionError(
                "this export was made by an earlier version, and cannot draw noise around the latents",
                where=card.reference,
                fix=f"delete {card.key} in the store and publish the run again",
            )

    @classmethod
    def load(cls, store: str | Path | Store, model: str | ModelCard, *, device: str = "cpu", trust: bool = False) -> Converter:
        """Loads a published model from a store.

        Args:
            store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
            model: NAME, NAME@VERSION, or its card.
            device: where it runs: ``cpu`` or ``cuda``.
            trust: load a file with operators that no export of rave-dist has; a model file is a program.

        Raises:
            ModelNotFoundError: no such model or version.
            StoreError: the store cannot be read, or the file is not the published one.
            UntrustedModelError: the file has such operators.

        Example:
            >>> converter = rd.Converter.load("store", "rebana")
            >>> converter.card.reference == rd.find_model("store", "rebana").reference
            True
        """
        place = store if isinstance(store, Store) else Store(str(store))
        place.check_exists()
        card = find(place, model) if isinstance(model, str) else model
        with temporary_folder("model") as folder:
            return cls(fetch(place, card, folder=Path(folder), trust=trust), card, device=device)

    def convert_array(
        self,
        audio: Audio,
        *,
        sample_rate: int,
        seed: int = DEFAULT_SEED,
        noise: float = 1.0,
        latent_noise: float = DEFAULT_LATENT_NOISE,
        out_sample_rate: int | None = None,
        out_channels: int | None = None,
        chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    ) -> Audio:
        """Converts a whole recording in memory; `convert` is the same for a stream.

        Input: [C, T], float32, full scale 1.

        Output: [C, T], float32, within ±1: ``out_channels`` and ``out_sample_rate`` where given, else those of the input.

        Args:
            audio: the sound.
            sample_rate: of the sound, in Hz.
            seed: picks all noise.
            noise: level of the model's noise generator, if it has one; 0 leaves it out.
            latent_noise: level of the noise around the latents; 1 as RAVE and the streaming file play, 0 for their mean.
            out_sample_rate: of the result, in Hz; None keeps the sound's.
            out_channels: of the result; None keeps the sound's.
            chunk_seconds: seconds of audio in the model at once.

        Raises:
            ConversionError: not [C, T], chunks shorter than one frame of the model, or a rate or channel count below 1.
            AudioError: the model's result is NaN or infinite.

        Example:
            >>> import numpy as np
            >>> stereo = np.zeros((2, 48000), dtype=np.float32)
            >>> rd.Converter.load("store", "rebana").convert_array(stereo, sample_rate=48000).shape
            (2, 48000)
        """
        if audio.ndim != 2 or not audio.shape[0]:
            raise ConversionError(
                f"audio of the shape {list(audio.shape)} is not [C, T]", fix="give [channels, samples]: for mono, audio[None]"
            )
        blocks = self.convert(
            [np.asarray(audio, dtype=np.float32)],
            sample_rate=sample_rate,
            channels=audio.shape[0],
            seed=seed,
            noise=noise,
            latent_noise=latent_noise,
            out_sample_rate=out_sample_rate,
            out_channels=out_channels,
            chunk_seconds=chunk_seconds,
        )
        return np.concatenate([np.zeros((out_channels or audio.shape[0], 0), np.float32), *blocks], axis=1)

    def convert(
        self,
        blocks: Iterable[Audio],
        *,
        sample_rate: int,
        channels: int,
        seed: int = DEFAULT_SEED,
        noise: float = 1.0,
        latent_noise: float = DEFAULT_LATENT_NOISE,
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
            out_sample_rate: of the result, in Hz; None keeps the source's.
            out_channels: of the result; None keeps the source's.
            chunk_seconds: seconds of audio in the model at once; less where all channels together exceed 32 MiB.

        Returns:
            An iterator of blocks, which counts samples and clipped samples.

        Raises:
            ConversionError: chunks shorter than one frame of the model, or a rate or channel count below 1.
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
        core = min(chunk_samples(self.card, chunk_seconds), _most_samples(self.card, out_channels or channels))
        levels = (noise, latent_noise)
        if not all(0 <= level < math.inf for level in levels):
            raise ConversionError("the level of a noise is negative, NaN or infinite", fix="give 0 or more; 1 is as trained")
        play = partial(self._play, seed=seed, levels=levels)
        return Conversion(
            self._stream(
                blocks, play, core, channels=out_channels or channels, rates=(sample_rate, out_sample_rate or sample_rate)
            )
        )

    def _stream(
        self,
        blocks: Iterable[Audio],
        play: Callable[[Chunk], Audio],
        core: int,
        *,
        channels: int,
        rates: tuple[int, int],
    ) -> Iterator[Audio]:
        card = self.card
        received = produced = 0

        def mapped() -> Iterator[Audio]:
            nonlocal received
            for block in blocks:
                received += block.shape[1]
                yield map_channels(block, channels)

        there = resample(mapped(), rate=rates[0], new_rate=card.sample_rate, channels=channels)
        chunks = cut(there, hop=card.hop, core=core, context=card.receptive_field)
        back = resample(map(play, chunks), rate=card.sample_rate, new_rate=rates[1], channels=channels)
        # Both resamplings round the length, so the sum may be off by a sample.
        for block in back:
            block = block[:, : max(0, resampled_length(received, *rates) - produced)]
            produced += block.shape[1]
            yield block
        if produced < (length := resampled_length(received, *rates)):
            yield np.zeros((channels, length - produced), np.float32)

    def _play(self, chunk: Chunk, *, seed: int, levels: tuple[float, float]) -> Audio:
        """Converts a chunk's core, all channels."""
        width = self.card.channels
        channels, length = chunk.samples.shape
        rows = -(-channels // width)
        alone = rows * width - channels  # an incomplete last row repeats its last channel
        samples = np.concatenate([chunk.samples, np.repeat(chunk.samples[-1:], alone, axis=0)])
        x = torch.from_numpy(samples.reshape(rows, width, length))
        at_once = _ROWS_AT_ONCE.get(self.device.type, 1)
        results = []
        # Unoptimised: TorchScript's profiling would compile other kernels, with other rounding, after some calls. On a GPU
        # PyTorch's defaults let convolutions round to 10 bits (TF32), choose kernels by length, and sum in any order.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact, torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            for row in range(0, rows, at_once):
                try:
                    y = self._model.convert(x[row : row + at_once].to(self.device), chunk.position, seed + row, *levels)
                except torch.OutOfMemoryError as error:
                    raise ConversionError(
                        f"the device does not have enough memory for {length / self.card.sample_rate:.0f} s at once",
                        where=self.card.reference,
                        fix="use shorter chunks (--chunk-seconds)",
                    ) from error
                results.append(y[..., chunk.core].cpu())
        out = torch.cat(results).reshape(rows * width, -1).numpy()
        if not np.isfinite(out).all():
            raise AudioError(
                "the model's output for this recording is NaN or infinite",
                where=self.card.reference,
                fix="convert it with another model or version; this one fails on such sounds",
            )
        if alone:
            first = (rows - 1) * width
            out = np.concatenate([out[:first], out[first:].mean(axis=0, keepdims=True)])
        return np.asarray(out, dtype=np.float32)


class Conversion(Iterator[Audio]):
    """The blocks of a converted recording, within ±1, with counts of the samples so far.

    ``samples`` per channel; ``clipped_samples`` over all channels; ``levels`` are those before clipping.
    """

    def __init__(self, blocks: Iterator[Audio]) -> None:
        self._blocks = blocks
        self.levels = Peaks()

    @property
    def samples(self) -> int:
        """Samples per channel so far."""
        return self.levels.samples

    @property
    def clipped_samples(self) -> int:
        """Clipped samples of all channels so far."""
        return self.levels.over

    def __next__(self) -> Audio:
        block = next(self._blocks)
        self.levels.add(block)
        return np.clip(block, -1, 1)


def _most_samples(card: ModelCard, channels: int) -> int:
    """The length of a chunk of `_CHUNK_BYTES`, a multiple of the model's frame."""
    return max(1, _CHUNK_BYTES // (4 * channels * card.hop)) * card.hop


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
