"""A published model that converts audio in this process."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.types import Audio
from rave_dist.conversion.batches import Apply, Batches
from rave_dist.conversion.encodings import Encodings
from rave_dist.conversion.rows import Row, as_channels, as_rows, placed
from rave_dist.conversion.stream import CHUNK_BYTES, Played, Playing, StreamConverter
from rave_dist.errors import AudioError, ConversionError
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_LATENT_NOISE, DEFAULT_SEED
from rave_dist.records import ModelCard
from rave_dist.registry.store import fetch, find
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

_HALVES = ("analyse", "latents_at", "encode_at", "decode_at")


class Converter(StreamConverter):
    """A published model, ready to convert audio of any sample rate, channel count and length.

    Args:
        model_path: its offline TorchScript.
        card: its card.
        device: where it runs: ``cpu`` or ``cuda``.
        encodings: of its encoder, if it shares them with other models.
        batches: in which it plays, if it shares them with other models; by default its own.

    Raises:
        ConversionError: the file is not TorchScript, or cannot convert.

    Example:
        >>> converter = rd.Converter.load("store", "rebana")
        >>> converter.card.name, converter.device.type
        ('rebana', 'cpu')
    """

    batches: Batches

    def __init__(
        self,
        model_path: Path | str,
        card: ModelCard,
        *,
        device: str = "cpu",
        encodings: Encodings | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.card = card
        self._encodings = encodings
        self.device = torch.device(device)
        self.batches = batches or Batches.on(device)
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
        batches: Batches | None = None,
    ) -> Converter:
        """Loads a published model from a store.

        Args:
            store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
            model: NAME, NAME@VERSION, or its card.
            device: where it runs: ``cpu`` or ``cuda``.
            trust: load a file with operators that no export of rave-dist has; a model file is a program.
            encodings: of its encoder, if it shares them with other models.
            batches: in which it plays, if it shares them with other models; by default its own.

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
            path = fetch(place, card, folder=Path(folder), trust=trust)
            return cls(path, card, device=device, encodings=encodings, batches=batches)

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
        chunks = iter(chunks)
        for first in chunks:
            rows = -(-len(first.samples) // self.card.channels)
            more = min(self.batches.size // rows, CHUNK_BYTES // first.samples.nbytes) - 1
            played = self._played([first, *islice(chunks, max(0, more))], playing)
            del first  # holds no chunk while it waits
            while played:
                yield played.pop(0)

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
        played = list(self._play_all(chunks, playing))
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
        (played,) = self._played([chunk], playing)
        return played.audio

    def _played(self, chunks: Sequence[Chunk], playing: Playing) -> list[Played]:
        """The same of several chunks, with the latents of the cores before they are changed, if they are scored."""
        channels = [as_rows(chunk.samples, self.card.channels) for chunk in chunks]
        rows = [row for x, chunk in zip(channels, chunks, strict=True) for row in placed(x, chunk.position, playing.seed)]
        scored = self.card.familiarity is not None
        results = iter(self._play(rows, playing, wanted=scored))
        played = []
        for x, chunk in zip(channels, chunks, strict=True):
            own = list(islice(results, len(x)))
            y = as_channels(self._stack([y[..., chunk.core] for y, *_ in own]), len(chunk.samples))
            played.append(Played(y, self._stack([z[..., self._frames(chunk)] for _, z in own]) if scored else None))
        return played

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
        x, level = as_rows(chunk.samples, self.card.channels), playing.latent_noise

        def encode(x: Tensor, position: Tensor, seed: Tensor) -> Row:
            return (self._model.encode_at(x.to(self.device), position, seed, level),)

        rows = self._by_rows(("encode", level), encode, placed(x, chunk.position, playing.seed), x.shape[-1])
        return self._stack([z[..., self._frames(chunk)] for (z,) in rows])

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

        noise, level = playing.controls.noise, playing.latent_noise

        def decode(z: Tensor, position: Tensor, seed: Tensor) -> Row:
            return (self._model.decode_at(z.to(self.device), position, seed, noise, level),)

        rows = self._by_rows(("decode", noise, level), decode, placed(z, chunk.position * hop, playing.seed), frames * hop)
        return as_channels(self._stack([y[..., core] for (y,) in rows]), channels)

    def _play(self, rows: Sequence[Row], playing: Playing, *, wanted: bool) -> list[Row]:
        """The model's output (y [C, T],) for rows of sound, in the host's memory.

        Where the latents are wanted, shared or changed, the two halves of a conversion are called, and for each row the latents
        are returned too, as the encoder gives them: (y, z [latents, frames]).
        """
        model, device, level, controls = self._model, self.device, playing.latent_noise, playing.controls
        noise, samples = controls.noise, max(x.shape[-1] for x, *_ in rows)

        def convert(x: Tensor, position: Tensor, seed: Tensor) -> Row:
            return (model.convert(x.to(device), position, seed, noise, level),)

        def analyse(x: Tensor) -> Row:
            return (model.analyse(x.to(device)),)

        def finish(h: Tensor, position: Tensor, seed: Tensor) -> Row:
            z: Tensor = model.latents_at(h.to(device), position, seed, level)
            changed = controls.temperature * z
            for number, (scale, bias) in controls.latents.items():
                changed[:, number - 1] = scale * changed[:, number - 1] + bias
            return model.decode_at(changed, position, seed, noise, level), z

        if not (wanted or self._encodings is not None or controls.latents or controls.temperature != 1):
            return self._by_rows(("convert", noise, level), convert, rows, samples)
        self._require(*_HALVES)
        key = (level, repr(controls))
        if self._encodings is None:
            return self._by_rows(("both halves", key), lambda x, *place: finish(*analyse(x), *place), rows, samples)

        def encode(missing: list[Tensor]) -> list[Tensor]:
            return [h for (h,) in self._by_rows("first half", analyse, [(x,) for x in missing], samples)]

        encoded = self._encodings.find([x for x, *_ in rows], encode)
        second = [(h, *place) for h, (_, *place) in zip(encoded, rows, strict=True)]
        return self._by_rows(("second half", key), finish, second, samples)

    def _by_rows(self, key: Hashable, apply: Apply, rows: Sequence[Row], samples: int) -> list[Row]:
        """What a function makes of rows, in batches that suit the device, of at most ``samples`` samples each."""
        try:
            return self.batches.play((id(self), key), apply, rows)
        except torch.OutOfMemoryError as error:
            seconds = self.batches.size * samples / self.card.sample_rate
            raise ConversionError(
                f"the device does not have enough memory for {seconds:.0f} s at once",
                where=self.card.reference,
                fix="use shorter chunks (--chunk-seconds)",
            ) from error

    def _stack(self, rows: Sequence[Tensor]) -> Audio:
        """Results of rows as an array [rows, ...].

        Raises:
            AudioError: one is NaN or infinite.
        """
        out: Audio = torch.stack(list(rows)).numpy()
        if not np.isfinite(out).all():
            raise AudioError(
                "the model's output for this recording is NaN or infinite",
                where=self.card.reference,
                fix="convert it with another model or version; this one fails on such sounds",
            )
        return out
