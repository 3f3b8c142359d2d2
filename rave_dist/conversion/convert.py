"""A published model that converts audio in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.types import Audio
from rave_dist.conversion.encodings import Encodings
from rave_dist.conversion.stream import Played, Playing, StreamConverter
from rave_dist.errors import AudioError, ConversionError
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_LATENT_NOISE, DEFAULT_SEED
from rave_dist.records import ModelCard
from rave_dist.registry.store import fetch, find
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

# Several channels at once use a GPU better; on a CPU they save nothing and cost memory.
_HALVES = ("analyse", "latents_at", "encode_at", "decode_at")
_ROWS_AT_ONCE = {"cpu": 1, "cuda": 8}


class Converter(StreamConverter):
    """A published model, ready to convert audio of any sample rate, channel count and length.

    Args:
        model_path: its offline TorchScript.
        card: its card.
        device: where it runs: ``cpu`` or ``cuda``.
        encodings: of its encoder, if it shares them with other models.

    Raises:
        ConversionError: the file is not TorchScript, or cannot convert.

    Example:
        >>> converter = rd.Converter.load("store", "rebana")
        >>> converter.card.name, converter.device.type
        ('rebana', 'cpu')
    """

    def __init__(
        self, model_path: Path | str, card: ModelCard, *, device: str = "cpu", encodings: Encodings | None = None
    ) -> None:
        self.card = card
        self._encodings = encodings
        self.device = torch.device(device)
        try:
            self._model = torch.jit.load(str(model_path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"not a TorchScript model ({str(error).splitlines()[0]})", where=card.reference, fix="publish the model again"
            ) from error
        self._require("convert")

    def _require(self, *methods: str) -> None:
        """Refuses an export that cannot do what is asked of it."""
        if missing := [method for method in methods if not hasattr(self._model, method)]:
            raise ConversionError(
                f"this export has no {missing[0]} method",
                where=self.card.reference,
                fix=f"delete {self.card.key} in the store and publish the run again",
            )

    @classmethod
    def load(
        cls,
        store: str | Path | Store,
        model: str | ModelCard,
        *,
        device: str = "cpu",
        trust: bool = False,
        encodings: Encodings | None = None,
    ) -> Converter:
        """Loads a published model from a store.

        Args:
            store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
            model: NAME, NAME@VERSION, or its card.
            device: where it runs: ``cpu`` or ``cuda``.
            trust: load a file with operators that no export of rave-dist has; a model file is a program.
            encodings: of its encoder, if it shares them with other models.

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
            return cls(fetch(place, card, folder=Path(folder), trust=trust), card, device=device, encodings=encodings)

    def convert_array(
        self,
        audio: Audio,
        *,
        sample_rate: int,
        seed: int = DEFAULT_SEED,
        noise: float = 1.0,
        latent_noise: float = DEFAULT_LATENT_NOISE,
        temperature: float = 1.0,
        latents: Mapping[int, tuple[float, float]] = MappingProxyType({}),
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
            temperature: factor on all latents, which for variational models lie around the mean of the training set.
            latents: (scale, bias) of single latents, which count from 1; applied after the temperature.
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
            temperature=temperature,
            latents=latents,
            out_sample_rate=out_sample_rate,
            out_channels=out_channels,
            chunk_seconds=chunk_seconds,
        )
        return np.concatenate([np.zeros((out_channels or audio.shape[0], 0), np.float32), *blocks], axis=1)

    def _play_all(self, chunks: Iterable[Chunk], playing: Playing) -> Iterator[Played]:
        """What the model makes of the cores of chunks, in order."""
        return map(partial(self._played, playing=playing), chunks)  # holds no chunk while it waits

    def play_part(self, chunks: Iterable[Chunk], playing: Playing) -> Played:
        """What the model makes of the cores of consecutive chunks.

        Args:
            chunks: in order, at least one.
            playing: how the model plays.

        Raises:
            AudioError: as `play`.
            ConversionError: as `play`.

        Example:
            >>> import numpy as np
            >>> from rave_dist.audio.dsp.chunks import cut
            >>> from rave_dist.conversion.stream import Playing
            >>> converter = rd.Converter.load("store", "rebana")
            >>> hop, context = converter.card.hop, converter.card.receptive_field
            >>> chunks = cut([np.zeros((1, 2 * hop), dtype=np.float32)], hop=hop, core=hop, context=context)
            >>> converter.play_part(chunks, Playing(seed=0, latent_noise=1.0)).audio.shape == (1, 2 * hop)
            True
        """
        played = [self._played(chunk, playing) for chunk in chunks]
        latents = [each.latents for each in played if each.latents is not None]
        return Played(np.concatenate([each.audio for each in played], axis=1), np.concatenate(latents, 2) if latents else None)

    def play(self, chunk: Chunk, playing: Playing) -> Audio:
        """What the model makes of a chunk's core.

        Output: [C, T], float32, not limited to full scale.

        Args:
            chunk: samples at the model's rate, with context.
            playing: how the model plays.

        Raises:
            AudioError: the result is NaN or infinite.
            ConversionError: the device is out of memory.

        Example:
            >>> import numpy as np
            >>> from rave_dist.audio.dsp.chunks import cut
            >>> from rave_dist.conversion.stream import Playing
            >>> converter = rd.Converter.load("store", "rebana")
            >>> hop, context = converter.card.hop, converter.card.receptive_field
            >>> (chunk,) = cut([np.zeros((1, hop), dtype=np.float32)], hop=hop, core=hop, context=context)
            >>> converter.play(chunk, Playing(seed=0, latent_noise=1.0)).shape == (1, hop)
            True
        """
        return self._played(chunk, playing).audio

    def _played(self, chunk: Chunk, playing: Playing) -> Played:
        """The same, with the latents of the core before they are changed, if they are scored."""
        x, frames = _rows(chunk.samples, self.card.channels), self._frames(chunk)
        scored = self.card.familiarity is not None
        found = []

        def play(rows: Tensor, row: int) -> Tensor:
            y, z = self._play(rows, chunk.position, playing, row, wanted=scored)
            if scored and z is not None:
                found.append(z[..., frames].cpu())
            return y[..., chunk.core]

        y = self._by_rows(x, play, x.shape[-1])
        return Played(as_channels(y, len(chunk.samples)), torch.cat(found).numpy() if scored else None)

    def _frames(self, chunk: Chunk) -> slice:
        """The latent frames of a chunk's core."""
        return slice(chunk.core.start // self.card.hop, -(-chunk.core.stop // self.card.hop))

    def encode_chunk(self, chunk: Chunk, playing: Playing) -> Audio:
        """The latents of a chunk's core: the first half of `play`.

        Output: [rows, latents, frames], a row for each ``card.channels`` channels.

        Args:
            chunk: samples at the model's rate, with context.
            playing: how the model plays.

        Raises:
            AudioError: they are NaN or infinite.
            ConversionError: the device is out of memory.

        Example:
            >>> import numpy as np
            >>> from rave_dist.audio.dsp.chunks import cut
            >>> from rave_dist.conversion.stream import Playing
            >>> converter = rd.Converter.load("store", "rebana")
            >>> hop = converter.card.hop
            >>> (chunk,) = cut([np.zeros((2, hop), dtype=np.float32)], hop=hop, core=hop, context=(0, 0))
            >>> z = converter.encode_chunk(chunk, Playing(seed=0, latent_noise=1.0))
            >>> z.shape == (2, converter.card.latents, 1)
            True
        """
        self._require(*_HALVES)
        x, core = _rows(chunk.samples, self.card.channels), self._frames(chunk)

        def encode(rows: Tensor, row: int) -> Tensor:
            z: Tensor = self._model.encode_at(rows.to(self.device), chunk.position, playing.seed + row, playing.latent_noise)
            return z[..., core]

        return self._by_rows(x, encode, x.shape[-1])

    def decode_chunk(self, chunk: Chunk, playing: Playing, *, channels: int) -> Audio:
        """The sound of a chunk of latents: the second half of `play`.

        Output: [C, T], float32, whole frames, not limited to full scale.

        Args:
            chunk: of latents [rows · latents, frames]; its position and core count frames.
            playing: how the model plays.
            channels: of the sound.

        Raises:
            AudioError: the result is NaN or infinite.
            ConversionError: the device is out of memory.

        Example:
            >>> import numpy as np
            >>> from rave_dist.audio.dsp.chunks import cut
            >>> from rave_dist.conversion.stream import Playing
            >>> converter = rd.Converter.load("store", "rebana")
            >>> z = np.zeros((converter.card.latents, 3), dtype=np.float32)
            >>> (chunk,) = cut([z], hop=1, core=3, context=(0, 0))
            >>> y = converter.decode_chunk(chunk, Playing(seed=0, latent_noise=1.0), channels=1)
            >>> y.shape == (1, 3 * converter.card.hop)
            True
        """
        self._require(*_HALVES)
        hop, frames = self.card.hop, chunk.samples.shape[1]
        core = slice(chunk.core.start * hop, chunk.core.stop * hop)
        z = torch.from_numpy(np.ascontiguousarray(chunk.samples).reshape(-1, self.card.latents, frames))

        def decode(rows: Tensor, row: int) -> Tensor:
            seed, position = playing.seed + row, chunk.position * hop
            y: Tensor = self._model.decode_at(
                rows.to(self.device), position, seed, playing.controls.noise, playing.latent_noise
            )
            return y[..., core]

        return as_channels(self._by_rows(z, decode, frames * hop), channels)

    def _by_rows(self, x: Tensor, apply: Callable[[Tensor, int], Tensor], samples: int) -> Audio:
        """What the model makes of [rows, ...], in parts that suit the device; ``apply`` gets a part's first number."""
        at_once = _ROWS_AT_ONCE.get(self.device.type, 1)
        results = []
        # Unoptimised: TorchScript's profiling would compile other kernels, with other rounding, after some calls. On a GPU
        # PyTorch's defaults let convolutions round to 10 bits (TF32), choose kernels by length, and sum in any order.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact, torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            for row in range(0, len(x), at_once):
                try:
                    results.append(apply(x[row : row + at_once], row).cpu())
                except torch.OutOfMemoryError as error:
                    raise ConversionError(
                        f"the device does not have enough memory for {samples / self.card.sample_rate:.0f} s at once",
                        where=self.card.reference,
                        fix="use shorter chunks (--chunk-seconds)",
                    ) from error
        out: Audio = torch.cat(results).numpy()
        if not np.isfinite(out).all():
            raise AudioError(
                "the model's output for this recording is NaN or infinite",
                where=self.card.reference,
                fix="convert it with another model or version; this one fails on such sounds",
            )
        return out

    def _play(self, x: Tensor, position: int, playing: Playing, row: int, *, wanted: bool) -> tuple[Tensor, Tensor | None]:
        """The model's output [B, C, T] for rows of a batch, of which the first has the number ``row``.

        Where the latents are wanted, shared or changed, the two halves of a conversion are called, and they are returned as the
        encoder gives them, [B, latents, frames].
        """
        seed, level, controls = playing.seed + row, playing.latent_noise, playing.controls
        y: Tensor
        if not (wanted or self._encodings is not None or controls.latents or controls.temperature != 1):
            y = self._model.convert(x.to(self.device), position, seed, controls.noise, level)
            return y, None
        self._require(*_HALVES)

        def analyse() -> Tensor:
            h: Tensor = self._model.analyse(x.to(self.device))
            return h

        h = analyse() if self._encodings is None else self._encodings.find(x, analyse)
        z: Tensor = self._model.latents_at(h, position, seed, level)
        changed = controls.temperature * z
        for number, (scale, bias) in controls.latents.items():
            changed[:, number - 1] = scale * changed[:, number - 1] + bias
        y = self._model.decode_at(changed, position, seed, controls.noise, level)
        return y, z


def _rows(samples: Audio, width: int) -> Tensor:
    """Channels [C, T] as rows [rows, width, T] for the model; an incomplete last row repeats its last channel."""
    rows = -(-len(samples) // width)
    samples = np.concatenate([samples, np.repeat(samples[-1:], rows * width - len(samples), axis=0)])
    return torch.from_numpy(samples.reshape(rows, width, -1))


def as_channels(y: Audio, channels: int) -> Audio:
    """Rows of the model [rows, width, T] as channels [C, T]; those of an incomplete last row are averaged."""
    out = y.reshape(y.shape[0] * y.shape[1], -1)
    if len(out) != channels:
        first = (len(y) - 1) * y.shape[1]
        out = np.concatenate([out[:first], out[first:].mean(axis=0, keepdims=True)])
    return np.asarray(out, dtype=np.float32)
