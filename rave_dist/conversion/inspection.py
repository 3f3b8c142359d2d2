"""The first pass over a source: how much of it can be read, and what its treatment needs to know beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.audio.io.open import open_audio
from rave_dist.conversion.file import SecondsRead
from rave_dist.errors import AudioError
from rave_dist.records import ConversionParameters, Treatment

if TYPE_CHECKING:
    from rave_dist.conversion.treatment import Profile


@dataclass(frozen=True)
class Readable:
    """The readable part of a source, as the conversion will have it; ``damage`` describes the rest.

    Attributes:
        sample_rate: of the output, in Hz.
        channels: of the output.
        samples: of the source, per channel.
        damage: why the rest cannot be read.
        notes: remarks about the file.
        profile: of the source, if it is to be treated.
    """

    sample_rate: int
    channels: int
    samples: int
    damage: AudioError | None
    notes: tuple[str, ...]
    profile: Profile | None


def inspect(path: Path, parameters: ConversionParameters, *, on_read: SecondsRead = lambda seconds: None) -> Readable:
    """Decodes a source once, in constant memory.

    Args:
        path: any format.
        parameters: of the conversion.
        on_read: called with the seconds so far, after each block.

    Raises:
        AudioError: the source cannot be opened.
    """
    samples, damage, profile = 0, None, None
    with open_audio(path) as decoder:
        rate, channels = parameters.sample_rate or decoder.sample_rate, parameters.channels or decoder.channels
        if parameters.treatment != Treatment():
            from rave_dist.conversion.treatment import Profile  # imported here: it imports scipy

            recorded = {"sample_rate": decoder.sample_rate, "channels": decoder.channels}
            profile = Profile(parameters.treatment, out_channels=channels, **recorded)
        try:
            for block in decoder.blocks():
                samples += block.shape[1]
                on_read(samples / decoder.sample_rate)
                if profile is not None:
                    profile.add(block)
        except AudioError as error:
            damage = error
        return Readable(rate, channels, samples, damage, decoder.notes, profile)
