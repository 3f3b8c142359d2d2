"""Conversion of one file through one or several models, used by both the command and the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.io.write import AudioWriter, Format, subtype_for
from rave_dist.audio.metrics.familiarity import Familiarity
from rave_dist.audio.types import Audio
from rave_dist.conversion.broadcast import Broadcast, Writing, run_together
from rave_dist.conversion.describe import Origin, describe
from rave_dist.conversion.levels import Peaks, SourceLevels, find_clipping, find_silence
from rave_dist.conversion.preserved import Features, compare
from rave_dist.conversion.stream import Conversion, StreamConverter
from rave_dist.errors import AudioError, StoreError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionParameters, Preservation, Problem

if TYPE_CHECKING:
    from rave_dist.conversion.treatment import Profile  # which imports scipy

SecondsRead = Callable[[float], None]
"""Called with the seconds of the source read so far, before the block that ends there is used, and at the end; may raise."""


@dataclass(frozen=True)
class ConvertedFile:
    """A written file: its seconds, its levels before clipping, the damage of a salvaged source, and what came out wrong.

    ``carried`` and ``not_carried`` are those of `ConversionItem`; ``notes`` are remarks about its loudness; ``preserved`` is
    None where the length of the source was not known; ``familiarity`` is that of the source.
    """

    seconds: float
    levels: Peaks
    damage: str | None
    silent: Problem | None
    clipped: Problem | None
    carried: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    preserved: Preservation | None = None
    familiarity: Familiarity | None = None


@dataclass(frozen=True)
class Target:
    """A file that is to be written.

    ``parameters`` are the sample rate, channels, seed, latent noise and treatment; ``origin`` is how the file names its source:
    without it the file has no metadata; ``profile`` is of the source: without it there is no treatment.
    """

    path: Path
    converter: StreamConverter
    parameters: ConversionParameters
    file_format: Format
    origin: Origin | None = None
    profile: Profile | None = None


def convert_file(
    source: Path,
    target: Target,
    *,
    source_samples: int | None = None,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    on_read: SecondsRead = lambda seconds: None,
) -> ConvertedFile:
    """Converts a file through one model; arguments as in `convert_together`.

    Raises:
        AudioError: the source is damaged, unreadable or empty, or the format does not support the result.
        StoreError: the target cannot be written.
    """
    (made,) = convert_together(
        source,
        [target],
        salvage=target.parameters.salvage,
        source_samples=source_samples,
        chunk_seconds=chunk_seconds,
        on_read=on_read,
    )
    if isinstance(made, Exception):
        raise made
    return made


def convert_together(
    source: Path,
    targets: Sequence[Target],
    *,
    salvage: bool = False,
    source_samples: int | None = None,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    on_read: SecondsRead = lambda seconds: None,
) -> list[ConvertedFile | Exception]:
    """Converts a file through several models, decoding it once.

    A target appears complete or not at all, with the bit depth of the source (16 or 24), and has the same bytes as if it were
    the only one.

    Args:
        source: any format.
        targets: their folders are created.
        salvage: convert the readable part of a damaged source.
        source_samples: length of the source per channel, if known.
        chunk_seconds: seconds of audio in a model at once.
        on_read: called before each block of the source is used, and at its end.

    Returns:
        For each target the written file; or the error, if it concerns this target alone: an `AudioError`, because the format
        does not support the result or the model fails on it, or a `StoreError`, because it cannot be written.

    Raises:
        AudioError: the source is damaged, unreadable or empty.
    """
    damage: list[str] = []
    with _open(source) as decoder:
        blocks, recorded = _blocks(decoder, on_read, damage if salvage else None), None
        if source_samples:
            recorded = Features(source_samples / decoder.sample_rate, decoder.sample_rate)
            blocks = recorded.of(blocks)
        works = [
            partial(
                _write, source, decoder, target, source_samples=source_samples, features=recorded, chunk_seconds=chunk_seconds
            )
            for target in targets
        ]
        made = run_together(blocks, works, ends_one=(AudioError, OSError))
    return [replace(file, damage=damage[0] if damage else None) if isinstance(file, ConvertedFile) else file for file in made]


def _write(
    source: Path,
    decoder: Decoder,
    target: Target,
    blocks: Iterator[Audio],
    *,
    source_samples: int | None,
    features: Features | None,
    chunk_seconds: float,
) -> Writing[ConvertedFile]:
    """Writes a target block by block; ``features`` are of the source."""
    parameters, profile = target.parameters, target.profile
    sample_rate = parameters.sample_rate or decoder.sample_rate
    channels = parameters.channels or decoder.channels
    recorded, treatment, notes = SourceLevels(decoder.subtype, channels), parameters.treatment, list[str]()
    play = partial(
        target.converter.convert,
        sample_rate=decoder.sample_rate,
        channels=decoder.channels,
        seed=parameters.seed,
        latent_noise=parameters.latent_noise,
        noise=parameters.controls.noise,
        temperature=parameters.controls.temperature,
        latents=parameters.controls.latents,
        out_sample_rate=sample_rate,
        out_channels=channels,
        chunk_seconds=chunk_seconds,
    )
    received = recorded.of(blocks)
    if profile is None:
        conversion = played = play(received)
    else:
        from rave_dist.conversion.treatment import after, before  # imported here: it imports scipy

        fork = Broadcast(received)
        played = play(before(fork.reader(), profile, treatment, sample_rate=decoder.sample_rate))
        rates, wet = (decoder.sample_rate, sample_rate), played.unlimited()
        known = played.familiarity
        made = after(wet, fork, profile, treatment, rates=rates, channels=channels, notes=notes, familiarity=known)
        conversion = Conversion(made)
    expected = source_samples and resampled_length(source_samples, decoder.sample_rate, sample_rate)
    result = source_samples and features and Features(source_samples / decoder.sample_rate, sample_rate)
    subtype, metadata = subtype_for(decoder.subtype), None
    if target.origin is not None:
        bits = int(subtype.removeprefix("PCM_"))
        metadata = describe(source, decoder, target.converter.card, parameters, target.origin, bits=bits, samples=expected)
    with AudioWriter(
        target.path,
        sample_rate=sample_rate,
        channels=channels,
        file_format=target.file_format,
        subtype=subtype,
        metadata=metadata,
        expected_samples=expected,
    ) as writer:
        for block in result.of(conversion) if result else conversion:
            writer.write(block)
            yield
        if not conversion.samples:
            raise AudioError("contains no samples", where=target.path.name, fix="leave it out")
    return ConvertedFile(
        conversion.samples / sample_rate,
        conversion.levels,
        damage=None,
        silent=find_silence(recorded, played.levels),
        clipped=find_clipping(recorded, conversion.levels, sample_rate),
        carried=metadata.kinds if metadata else (),
        not_carried=metadata.remarks if metadata else (),
        notes=tuple(notes),
        preserved=compare(features, result) if features and result else None,
        familiarity=played.familiarity,
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


def _blocks(decoder: Decoder, on_read: SecondsRead, damage: list[str] | None) -> Iterator[Audio]:
    """The blocks of a source; damage is appended to ``damage``, or raised where that is None."""
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
        yield block
