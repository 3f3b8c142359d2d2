"""Sounds between two sounds, and between two instruments of one encoder.

::

    sound A ─> encoder ─> latents ─┐
                                   ├─> mixed ─> decoder, with weights between those of two instruments ─> sound
    sound B ─> encoder ─> latents ─┘

Two sounds are mixed in what the decoder receives, two instruments of one base in the weights: that is a sound or an instrument
between them, where a mix of results would be both at once. At 0 and 1 the result is that of the one or the other alone, to the
last bit where it is one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.write import Format
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.latents import decode, encode, inspect_for_latents, write_sound
from rave_dist.conversion.latents_file import LatentsInfo
from rave_dist.conversion.rows import Row, as_channels, placed
from rave_dist.conversion.stream import Playing
from rave_dist.errors import ConversionError
from rave_dist.identity import hash_file
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ModelCard


class Amount(NamedTuple):
    """How far from the first to the second, 0 to 1: at the beginning, and at the end, linearly between them."""

    start: float
    end: float

    def check(self) -> None:
        """Checks the values.

        Raises:
            ConversionError: one is not from 0 to 1.
        """
        for name, value in (("--amount", self.start), ("--to", self.end)):
            if not 0 <= value <= 1:  # NaN compares as false
                raise ConversionError(f"must be between 0 and 1, not {value:g}", where=name, fix="correct it, e.g. 0.5")

    def at(self, first: int, count: int, *, of: int) -> Audio:
        """The amounts of ``count`` frames from ``first`` on, of a sound of ``of`` frames. Output: [count], float32."""
        position = np.clip(np.arange(first, first + count) / max(1, of - 1), 0, 1)
        return (self.start + (self.end - self.start) * position).astype(np.float32)

    @property
    def in_words(self) -> str:
        """For the file's tags."""
        return f"morph {self.start:g}" + (f" to {self.end:g}" if self.end != self.start else "")


class Morph(Converter):
    """Plays latents between two sounds, through one model or one between two.

    Each model has principal components of its own, so the latents of both models are played, and mixed behind them.

    Args:
        converters: one model, or two of one encoder, which are changed and must not be used any more.
        sounds: one or two.
        amount: how far from the first to the second; with two models it does not change.
        frames: of the whole sound.

    Raises:
        ConversionError: two models do not have one encoder, or are built differently.
    """

    def __init__(self, converters: Sequence[Converter], sounds: int, amount: Amount, *, frames: int) -> None:
        self.card, self.device = converters[0].card, converters[0].device
        self._encodings, self.batches = None, converters[0].batches
        self._models = [converter._model for converter in converters]
        self._model = self._models[0]
        self._sounds, self._amount, self._frames_of_all = sounds, amount, frames
        if len(converters) == 2:
            cards = [converter.card for converter in converters]
            check_one_encoder(*cards)
            self.card = cards[0].model_copy(update={"receptive_field": _field(*cards)})
            _blend(self._model, self._models[1], amount.start, cards)

    def decode_chunk(self, chunk: Chunk, playing: Playing, *, channels: int) -> Audio:
        """The sound of a chunk of latents, [models · sounds · rows · latents, frames]; see `Converter.decode_chunk`."""
        hop, frames = self.card.hop, chunk.samples.shape[1]
        shape = (len(self._models), self._sounds, -1, self.card.latents, frames)
        z = torch.from_numpy(np.ascontiguousarray(chunk.samples)).reshape(shape).permute(2, 0, 1, 3, 4)
        share = torch.from_numpy(self._amount.at(chunk.position, frames, of=self._frames_of_all))[None]
        noise, level = playing.controls.noise, playing.latent_noise

        def play(z: Tensor, position: Tensor, seed: Tensor, share: Tensor) -> Row:
            z, share = z.to(self.device), share.to(self.device)
            frame = position // hop

            def received(which: int, level: float) -> Tensor:
                """What the decoder receives of one model's latents."""
                latents = self._models[which].latents
                sounds = [latents.decode(z[:, which, sound], frame, seed, level, noise) for sound in range(self._sounds)]
                return sounds[0] if len(sounds) == 1 else between(sounds[0], sounds[1], share, latents)

            if len(self._models) == 1:
                whole = received(0, level)
            else:
                # The noise of components that are not exposed is one model's: mixed, that of two would partly cancel.
                amount, nearer = self._amount.start, round(self._amount.start)
                means = [received(which, 0.0) for which in range(2)]
                noisy = received(nearer, level)
                whole = between(means[0], means[1], torch.tensor(amount), self._model.latents) + (noisy - means[nearer])
            return (self._model.synthesise(whole, position, seed, noise),)

        rows = [(*row, share) for row in placed(z, chunk.position * hop, playing.seed)]
        core = slice(chunk.core.start * hop, chunk.core.stop * hop)
        played = self._by_rows(("morph", noise, level), play, rows, frames * hop)
        return as_channels(self._stack([y[..., core] for (y,) in played]), channels)


def check_one_encoder(one: ModelCard, other: ModelCard) -> None:
    """Refuses two models whose encoders, or numbers of latents, differ.

    Raises:
        ConversionError: they do.
    """
    if not one.encoder or one.encoder != other.encoder:
        raise ConversionError(
            f"{one.reference} and {other.reference} do not have one encoder",
            where="--model",
            fix="train both from one base with freeze_encoder: true, see docs/bases.md",
        )
    if one.latents != other.latents:
        raise ConversionError(
            f"{one.reference} has {one.latents} latents, and {other.reference} has {other.latents}",
            where="--model",
            fix="choose two models with the same number",
        )


def _blend(model: Any, other: Any, amount: float, cards: Sequence[ModelCard]) -> None:
    """Gives a model the weights between its own and another's; their encoders are the same, and stay."""
    ours, theirs = model.state_dict(), other.state_dict()
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        raise ConversionError(
            f"{cards[0].reference} and {cards[1].reference} are built differently",
            where="--model",
            fix="choose two models that ended in the same phase",
        )
    with torch.no_grad():
        for name, value in ours.items():
            if value.is_floating_point() and not name.startswith("latents."):
                value.lerp_(theirs[name], amount)


def _field(one: ModelCard, other: ModelCard) -> tuple[int, int]:
    (left, right), (other_left, other_right) = one.receptive_field, other.receptive_field
    return max(left, other_left), max(right, other_right)


def between(one: Tensor, other: Tensor, share: Tensor, latents: Any) -> Tensor:
    """What is between two inputs of a decoder, [B, D, F]; of a spherical model, on the sphere."""
    mixed = (1 - share) * one + share * other
    if latents.original_name != "SphericalLatents":
        return mixed
    length: Tensor = mixed.norm(dim=1, keepdim=True)
    return mixed / length.clamp_min(1e-6)


def morph_files(
    sources: Sequence[tuple[Path, str]],
    converters: Sequence[Converter],
    target: Path,
    file_format: Format,
    *,
    amount: Amount,
    seed: int,
    latent_noise: float,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
) -> float:
    """Writes a sound between two sounds, through one model or one between two, in constant memory.

    Args:
        sources: one or two recordings, each with its name; the result has the sample rate of the first, the channels of that
            with more, and the length of the shorter.
        converters: one or two models; of two they must not be used any more.
        target: the file to write.
        file_format: FLAC or WAV.
        amount: how far from the first to the second; for two models it must not change.
        seed: picks all noise.
        latent_noise: level of the noise around the latents.
        chunk_seconds: seconds of audio in a model at once.

    Returns:
        Its seconds.

    Raises:
        ConversionError: the models do not have one encoder.
        AudioError: a recording is damaged or empty, or the sound is NaN or infinite.
        StoreError: the target cannot be written.
    """
    cards = [converter.card for converter in converters]
    found = [
        inspect_for_latents(path, cards[0], seed=seed, latent_noise=latent_noise, name=name, sha256=hash_file(path))
        for path, name in sources
    ]
    channels = max(info.channels for info in found)
    infos = [info.model_copy(update={"channels": channels}) for info in found]
    rate, frames = infos[0].sample_rate, min(info.frames for info in infos)
    samples = min(resampled_length(info.samples, info.sample_rate, rate) for info in infos)
    result = infos[0].model_copy(update={"samples": samples})
    if len(converters) == 2 and amount.start in (0, 1):
        converters = [converters[int(amount.start)]]
    player = Morph(converters, len(infos), amount, frames=frames)
    streams = [
        _encoded(converter, path, info, chunk_seconds)
        for converter in converters
        for (path, _), info in zip(sources, infos, strict=True)
    ]
    sound = decode(player, _aligned(streams), result, frames=frames, chunk_seconds=chunk_seconds)
    second = infos[1] if len(infos) == 2 else None
    length = result.length(frames)
    return write_sound(target, sound, result, cards, file_format, remark=amount.in_words, samples=length, other=second)


def _encoded(converter: Converter, path: Path, info: LatentsInfo, chunk_seconds: float) -> Iterator[Audio]:
    with open_audio(path) as decoder:
        blocks = map(partial(map_channels, channels=info.channels), decoder.blocks())
        yield from encode(converter, blocks, info, chunk_seconds=chunk_seconds)


def _aligned(streams: Sequence[Iterator[Audio]]) -> Iterator[Audio]:
    """The blocks [rows, latents, n] of all streams below each other, to the end of the shortest."""
    for blocks in zip(*streams, strict=False):
        count = min(block.shape[2] for block in blocks)
        yield np.concatenate([block[..., :count].reshape(-1, count) for block in blocks])
