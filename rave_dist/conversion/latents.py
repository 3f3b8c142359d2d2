"""The two halves of a conversion: a sound to its latents, and latents to their sound.

::

    blocks -> model's rate -> chunks with context -> encoder -> latents
    latents -> chunks with context -> decoder -> the sound's rate -> exact length

Both cut the same chunks as a conversion, and all noise is a function of seed, row and absolute position. So the second half
of the first is the conversion: the same samples if the sound is one chunk, else up to rounding in the context of chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rave_dist.audio.dsp.chunks import cut
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.write import AudioWriter, Format, subtype_for
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.describe import describe_latents
from rave_dist.conversion.latents_file import LatentsFile, LatentsInfo, write_latents
from rave_dist.conversion.stream import Conversion, Playing, core_samples, of_length
from rave_dist.errors import AudioError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ModelCard


def encode(
    converter: Converter, blocks: Iterable[Audio], info: LatentsInfo, *, chunk_seconds: float = DEFAULT_CHUNK_SECONDS
) -> Iterator[Audio]:
    """The latents [rows, latents, frames] of a sound, in constant memory.

    Args:
        converter: the model.
        blocks: the sound, [C, T] each.
        info: about the sound and its latents.
        chunk_seconds: seconds of audio in the model at once.

    Raises:
        ConversionError: the model's export or the level of the noise is not suitable.
        AudioError: while iterating: what ``blocks`` raise, or latents are NaN or infinite.
    """
    card, playing = converter.card, _playing(info)
    there = resample(iter(blocks), rate=info.sample_rate, new_rate=card.sample_rate, channels=info.channels)
    core = core_samples(card, info.channels, chunk_seconds)
    for chunk in cut(there, hop=card.hop, core=core, context=card.receptive_field):
        yield converter.encode_chunk(chunk, playing)


def decode(
    converter: Converter,
    blocks: Iterable[Audio],
    info: LatentsInfo,
    *,
    frames: int,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
) -> Conversion:
    """The sound of latents, in constant memory, at the rate and with the channels of the sound that was encoded.

    Args:
        converter: the model.
        blocks: the latents, [rows · latents, frames] each.
        info: about them.
        frames: number of all frames; the sound is as long as they are.
        chunk_seconds: seconds of audio in the model at once.

    Raises:
        ConversionError: the model's export is not suitable; while iterating, what ``blocks`` raise.
        AudioError: while iterating: the result is NaN or infinite.
    """
    card, playing, hop = converter.card, _playing(info), converter.card.hop
    left, right = (-(-samples // hop) for samples in card.receptive_field)
    core = core_samples(card, info.channels, chunk_seconds) // hop
    chunks = cut(blocks, hop=1, core=core, context=(left, right))
    played = (converter.decode_chunk(chunk, playing, channels=info.channels) for chunk in chunks)
    # A sound's end inside of its last frame is where its conversion ends too, before the resampling.
    at_model = frames * hop if frames != info.frames else info.model_samples
    ended = of_length(played, lambda: at_model, channels=info.channels)
    back = resample(ended, rate=card.sample_rate, new_rate=info.sample_rate, channels=info.channels)
    return Conversion(of_length(back, lambda: info.length(frames), channels=info.channels))


def encode_file(
    source: Path, converter: Converter, target: Path, *, seed: int, latent_noise: float, name: str, sha256: str
) -> LatentsInfo:
    """Writes the latents of a recording as a table.

    The recording is read twice: the first time for its length, and to find damage before anything is written.

    Args:
        source: the recording.
        converter: the model.
        target: the table.
        seed: picks the noise around the latents.
        latent_noise: its level.
        name: of the recording.
        sha256: of its bytes.

    Raises:
        AudioError: the recording is damaged or empty, or the latents are NaN or infinite.
        ConversionError: the model's export or the level of the noise is not suitable.
    """
    info = inspect_for_latents(source, converter.card, seed=seed, latent_noise=latent_noise, name=name, sha256=sha256)
    with open_audio(source) as decoder:
        write_latents(target, encode(converter, decoder.blocks(), info), info)
    return info


def inspect_for_latents(
    source: Path, card: ModelCard, *, seed: int, latent_noise: float, name: str, sha256: str
) -> LatentsInfo:
    """Decodes a recording once; arguments as in `encode_file`.

    Raises:
        AudioError: the recording is damaged or empty.
    """
    with open_audio(source) as decoder:
        samples = sum(block.shape[1] for block in decoder.blocks())
        if not samples:
            raise AudioError("contains no samples", where=name, fix="leave it out")
        info = LatentsInfo(
            model=card.reference,
            model_sample_rate=card.sample_rate,
            model_channels=card.channels,
            hop=card.hop,
            latents=card.latents,
            sample_rate=decoder.sample_rate,
            channels=decoder.channels,
            samples=samples,
            subtype=decoder.subtype,
            seed=seed,
            latent_noise=latent_noise,
            source=name,
            source_sha256=sha256,
            source_format=decoder.format,
        )
    if not info.frames:
        raise AudioError("shorter than a sample at the model's rate", where=name, fix="leave it out")
    return info


def decode_file(table: LatentsFile, converter: Converter, target: Path, file_format: Format) -> float:
    """Writes the sound of a table, with 16 or 24 bits as the conversion of its recording.

    Returns:
        Its seconds.

    Raises:
        ConversionError: a value of the table is NaN, infinite or missing.
        AudioError: the sound is NaN or infinite, or the format does not support it.
        StoreError: it cannot be written.
    """
    info, frames = table.info, table.frames
    remark = "from a table of latents, which may have been edited"
    sound = decode(converter, table.blocks(), info, frames=frames)
    return write_sound(target, sound, info, [converter.card], file_format, remark=remark, samples=info.length(frames))


def write_sound(
    target: Path,
    sound: Iterable[Audio],
    info: LatentsInfo,
    cards: Sequence[ModelCard],
    file_format: Format,
    *,
    remark: str,
    samples: int,
    other: LatentsInfo | None = None,
) -> float:
    """Writes the sound of latents, with what it is derived from.

    Args:
        target: the file.
        sound: [C, T] each.
        info: about the latents.
        cards: of the models that play them.
        file_format: FLAC or WAV.
        remark: how they became what is played.
        samples: of the sound per channel.
        other: about the latents of a second recording.

    Returns:
        Its seconds.

    Raises:
        AudioError: the sound is NaN or infinite, or the format does not support it.
        StoreError: it cannot be written.
    """
    subtype = subtype_for(info.subtype)
    bits = int(subtype.removeprefix("PCM_"))
    with AudioWriter(
        target,
        sample_rate=info.sample_rate,
        channels=info.channels,
        file_format=file_format,
        subtype=subtype,
        metadata=describe_latents(info, cards, remark=remark, bits=bits, samples=samples, other=other),
        expected_samples=samples,
    ) as writer:
        for block in sound:
            writer.write(block)
    return samples / info.sample_rate


def _playing(info: LatentsInfo) -> Playing:
    playing = Playing(info.seed, info.latent_noise)
    playing.check()
    return playing
