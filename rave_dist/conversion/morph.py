"""Sounds between two sounds, and between two instruments of one encoder.

::

    sound A ─> encoder ─> latents ─┐
                                   ├─> mixed ─> decoder, with weights between those of two instruments ─> sound
    sound B ─> encoder ─> latents ─┘

Two sounds are mixed in the latents, two instruments of one base in the weights: that is a sound or an instrument between them,
where a mix of results would be both at once. At 0 and 1 the result is that of the one or the other alone, to the last bit where
it is one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.write import Format
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter, as_channels
from rave_dist.conversion.latents import decode, encode, inspect_for_latents, write_sound
from rave_dist.conversion.latents_file import LatentsInfo
from rave_dist.conversion.stream import Playing
from rave_dist.errors import ConversionError
from rave_dist.identity import hash_file
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
                raise ConversionError(
                    f"must be between 0 and 1, not {value:g}", where=name, fix="correct it; 0.5 is the middle"
                )


class Blend(Converter):
    """A model between two of one encoder; both are changed, and must not be used any more.

    It plays the latents of both models, one after the other in each frame, because each has principal components of its own.

    Args:
        one: a model.
        other: another one.
        amount: how far from the one to the other, 0 to 1.

    Raises:
        ConversionError: they do not have one encoder.
    """

    def __init__(self, one: Converter, other: Converter, amount: float) -> None:
        ours, theirs = one._model.state_dict(), other._model.state_dict()
        check_one_encoder(one.card, other.card)
        if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
            raise ConversionError(
                f"{one.card.reference} and {other.card.reference} are built differently",
                where="--model",
                fix="choose two models that ended in the same phase",
            )
        (left, right), (other_left, other_right) = one.card.receptive_field, other.card.receptive_field
        field = (max(left, other_left), max(right, other_right))
        self.card, self.device = one.card.model_copy(update={"receptive_field": field}), one.device
        self._encodings, self._model, self._other, self._amount = None, one._model, other._model, amount
        with torch.no_grad():
            for name, value in ours.items():
                if value.is_floating_point() and not name.startswith("latents."):
                    value.lerp_(theirs[name], amount)

    def decode_chunk(self, chunk: Chunk, playing: Playing, *, channels: int) -> Audio:
        """The sound of a chunk of both models' latents, [2 · rows · latents, frames]; see `Converter.decode_chunk`."""
        hop, frames = self.card.hop, chunk.samples.shape[1]
        halves = torch.from_numpy(np.ascontiguousarray(chunk.samples)).chunk(2)
        z = torch.stack([half.reshape(-1, self.card.latents, frames) for half in halves], 1)

        def play(rows: Tensor, row: int) -> Tensor:
            seed, level, noise = playing.seed + row, playing.latent_noise, playing.controls.noise
            whole = [
                model.latents.decode(rows[:, which].to(self.device), chunk.position, seed, level, noise)
                for which, model in enumerate((self._model, self._other))
            ]
            y: Tensor = self._model.synthesise(torch.lerp(whole[0], whole[1], self._amount), chunk.position * hop, seed, noise)
            return y[..., chunk.core.start * hop : chunk.core.stop * hop]

        return as_channels(self._by_rows(z, play, frames * hop), channels)


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


def mixed(one: Iterable[Audio], other: Iterable[Audio], amount: Amount, *, frames: int) -> Iterator[Audio]:
    """Latents between those of two sounds, in blocks of the same frames; ends with the shorter sound.

    Args:
        one: latents [rows, latents, n] each.
        other: of another sound.
        amount: how far from the one to the other.
        frames: of the result.
    """
    done = 0
    for first, second in zip(one, other, strict=False):
        count = min(first.shape[2], second.shape[2])
        share = amount.start + (amount.end - amount.start) * np.arange(done, done + count) / max(1, frames - 1)
        weight = share.astype(np.float32)
        yield (1 - weight) * first[..., :count] + weight * second[..., :count]
        done += count


def morph_files(
    sources: list[tuple[Path, str]],
    converters: list[Converter],
    target: Path,
    file_format: Format,
    *,
    amount: Amount,
    seed: int,
    latent_noise: float,
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
    rate = infos[0].sample_rate
    samples = min(resampled_length(info.samples, info.sample_rate, rate) for info in infos)
    frames = min(info.frames for info in infos)
    player = converters[0]
    latents = [_latents(converter, sources, infos, amount, frames=frames) for converter in converters]
    if len(converters) == 2:
        # Both encode with their own components before the weights are between them: the encoder is the same, and stays.
        player = Blend(converters[0], converters[1], amount.start)
    result = infos[0].model_copy(update={"samples": samples})
    stacked = (np.concatenate([_flat(z) for z in several]) for several in zip(*latents, strict=True))
    sound = decode(player, stacked, result, frames=frames)
    how = f"morph {amount.start:g}" if amount.start == amount.end else f"morph {amount.start:g} to {amount.end:g}"
    second = infos[1] if len(infos) == 2 else None
    return write_sound(target, sound, result, cards, file_format, remark=how, samples=result.length(frames), other=second)


def _latents(
    converter: Converter, sources: list[tuple[Path, str]], infos: list[LatentsInfo], amount: Amount, *, frames: int
) -> Iterator[Audio]:
    """The latents that a model plays, [rows, latents, n] each."""
    each = [_encoded(converter, path, info) for (path, _), info in zip(sources, infos, strict=True)]
    return each[0] if len(each) == 1 else mixed(each[0], each[1], amount, frames=frames)


def _encoded(converter: Converter, path: Path, info: LatentsInfo) -> Iterator[Audio]:
    with open_audio(path) as decoder:
        yield from encode(converter, map(partial(map_channels, channels=info.channels), decoder.blocks()), info)


def _flat(z: Audio) -> Audio:
    return z.reshape(-1, z.shape[2])
