"""Conversion of one file, used by both the command and the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.io.write import AudioWriter, subtype_for
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.describe import Origin, describe
from rave_dist.conversion.levels import Peaks, SourceLevels, find_clipping, find_silence
from rave_dist.errors import AudioError, StoreError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionParameters, Problem

SecondsRead = Callable[[float], None]
"""Called with the seconds of the source read so far, before the block that ends there is used, and at the end; may raise."""


@dataclass(frozen=True)
class ConvertedFile:
    """A written file: its seconds, its levels before clipping, the damage of a salvaged source, and what came out wrong.

    ``carried`` and ``not_carried`` are those of `ConversionItem`.
    """

    seconds: float
    levels: Peaks
    damage: str | None
    silent: Problem | None
    clipped: Problem | None
    carried: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()


def convert_file(
    converter: Converter,
    source: Path,
    target: Path,
    parameters: ConversionParameters,
    *,
    origin: Origin | None = None,
    source_samples: int | None = None,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    on_read: SecondsRead = lambda seconds: None,
) -> ConvertedFile:
    """Converts a file; the target appears complete or not at all, with the bit depth of the source (16 or 24).

    Args:
        converter: the model.
        source: any format.
        target: its folder is created.
        parameters: sample rate, channels, format, seed and latent noise of the target; with ``salvage`` the readable part of a
            damaged source is converted.
        origin: how the target names the source; without it the target has no metadata.
        source_samples: length of the source per channel, if known.
        chunk_seconds: seconds of audio in the model at once.
        on_read: called before each block of the source is used, and at its end.

    Raises:
        AudioError: the source is damaged, unreadable or empty, or the format does not support the result.
        StoreError: the target cannot be written.
    """
    damage: list[str] = []
    with _open(source) as decoder:
        sample_rate = parameters.sample_rate or decoder.sample_rate
        channels = parameters.channels or decoder.channels
        recorded = SourceLevels(decoder.subtype, channels)
        conversion = converter.convert(
            _blocks(decoder, recorded, on_read, damage if parameters.salvage else None),
            sample_rate=decoder.sample_rate,
            channels=decoder.channels,
            seed=parameters.seed,
            latent_noise=parameters.latent_noise,
            out_sample_rate=sample_rate,
            out_channels=channels,
            chunk_seconds=chunk_seconds,
        )
        expected = source_samples and resampled_length(source_samples, decoder.sample_rate, sample_rate)
        subtype = subtype_for(decoder.subtype)
        metadata = None
        if origin is not None:
            bits = int(subtype.removeprefix("PCM_"))
            metadata = describe(source, decoder, converter.card, parameters, origin, bits=bits, samples=expected)
        with AudioWriter(
            target,
            sample_rate=sample_rate,
            channels=channels,
            file_format=parameters.format,
            subtype=subtype,
            metadata=metadata,
            expected_samples=expected,
        ) as writer:
            for block in conversion:
                writer.write(block)
            if not conversion.samples:
                raise AudioError("contains no samples", where=str(source), fix="leave it out")
    return ConvertedFile(
        conversion.samples / sample_rate,
        conversion.levels,
        damage[0] if damage else None,
        silent=find_silence(recorded, conversion.levels),
        clipped=find_clipping(recorded, conversion.levels, sample_rate),
        carried=metadata.kinds if metadata else (),
        not_carried=metadata.remarks if metadata else (),
    )


@contextmanager
def _open(source: Path) -> Iterator[Decoder]:
    """An unreadable source fails that source only, whereas an unwritable target stops the conversion."""
    with ExitStack() as stack:
        try:
            decoder = stack.enter_context(open_audio(source))
        except StoreError as error:
            raise AudioError(error.what, where=str(source), fix=error.fix) from error
        yield decoder


def _blocks(decoder: Decoder, levels: SourceLevels, on_read: SecondsRead, damage: list[str] | None) -> Iterator[Audio]:
    """The blocks of a source, which are added to ``levels``; damage is appended to ``damage``, or raised where that is None."""
    seconds = 0.0
    blocks = decoder.blocks()
    while True:
        try:
            block = next(blocks, None)
        except StoreError as error:
            raise AudioError(error.what, fix=error.fix) from error
        except AudioError as error:
            if damage is None or not seconds:
                raise
            damage.append(error.what)
            block = None
        if block is None:
            on_read(seconds)
            return
        seconds += block.shape[1] / decoder.sample_rate
        on_read(seconds)
        levels.add(block)
        yield block
