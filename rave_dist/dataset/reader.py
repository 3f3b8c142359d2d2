"""Reading one recording into a spool of PCM, with everything that is measured on the way.

::

    decode ──> gain ──> channels ──> sample rate ──> int16 ──> spool
        └──> amplitudes of the channels               └──> levels, amplitudes, sha256

Floating-point recordings may exceed full scale, which 16 bits cannot hold: they are read again with the gain that puts their
peak at full scale.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.metrics.levels import Levels, warnings
from rave_dist.audio.types import Audio, Pcm16
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.silence import Amplitudes
from rave_dist.errors import AudioError

READER = 1
"""Incremented when some recordings are read better than before; records of earlier readers are not used again."""

_BLOCK_SECONDS = 10.0
_LOSSLESS = ("FLOAT", "DOUBLE", "pcm_f", "wavpack")
_LOSSY_PEAK = 2**0.5  # decoders of lossy formats exceed the recording's own peak by up to about 3 dB
_CANCELLED_POWER = 1e-2
_CANCELLED_AMPLITUDE = 10.0


def read_recording(path: Path, recipe: Recipe, spool: IO[bytes]) -> Reading:
    """Reads a recording to a spool, in dataset PCM (int16 little-endian, interleaved).

    A damaged recording is read as far as possible.

    Args:
        path: of the file.
        recipe: parameters.
        spool: an empty temporary file.

    Raises:
        AudioError: the file cannot be opened.
        StoreError: the file cannot be read, or changed while it was read.
    """
    reading = _read(path, recipe, spool)
    if reading.exceeds_full_scale:
        spool.seek(0)
        spool.truncate()
        reading = _read(path, recipe, spool, peak=reading.levels.decoded_peak)
    return reading


def _read(path: Path, recipe: Recipe, spool: IO[bytes], *, peak: float | None = None) -> Reading:
    with open_audio(path) as decoder:
        reading = Reading(decoder, recipe, peak)
        reading.run(decoder, spool)
        return reading


class Reading:
    """What is known of a recording after it was read.

    Attributes:
        sample_rate: as recorded, in Hz.
        channels: as recorded.
        format: of the container and the encoding.
        gain: the factor that its samples were multiplied by.
        read: decoded samples.
        declared: samples that its headers give, or None.
        damage: why it ends early, or None.
        samples: samples of the PCM.
        levels: of the recording and the PCM.
        amplitudes: of the PCM's frames.
    """

    def __init__(self, decoder: Decoder, recipe: Recipe, peak: float | None) -> None:
        self.sample_rate = decoder.sample_rate
        self.channels = decoder.channels
        self.format = f"{decoder.format} {decoder.subtype}"
        self.declared = decoder.declared_samples
        self.gain = 1.0 if peak is None else float(np.float32(1) / np.float32(peak))
        self.read = self.samples = 0
        self.damage: str | None = None
        self.levels = Levels(decoder.subtype, full_scale=peak)
        self.amplitudes = Amplitudes(recipe.frame)
        self._subtype = decoder.subtype
        self._notes = decoder.notes
        self._recipe = recipe
        self._digest = hashlib.sha256()
        self._mixes = decoder.channels > recipe.channels
        self._channel_frame = max(1, round(recipe.frame_seconds * decoder.sample_rate))
        self._of_channels = Amplitudes(self._channel_frame)
        self._power = self._mixed_power = 0.0

    def run(self, decoder: Decoder, spool: IO[bytes]) -> None:
        """Reads the recording to the spool."""
        channels = min(self.channels, self._recipe.channels)  # resample as few channels as possible
        mixed = (self._mixed(block, channels) for block in self._decoded(decoder))
        rates = {"rate": self.sample_rate, "new_rate": self._recipe.sample_rate}
        for block in resample(mixed, channels=channels, **rates):
            pcm = _to_int16(map_channels(block, self._recipe.channels))
            self.amplitudes.add(pcm)
            self.levels.add(pcm)
            data = np.ascontiguousarray(pcm.T).astype("<i2", copy=False).tobytes()
            self._digest.update(data)
            self.samples += pcm.shape[1]
            spool.write(data)

    def _decoded(self, decoder: Decoder) -> Iterator[Audio]:
        try:
            for block in decoder.blocks(_BLOCK_SECONDS):
                self.read += block.shape[1]
                self.levels.add_decoded(block)
                if not self.exceeds_full_scale:  # else only its peak is needed
                    yield block if self.gain == 1 else block * np.float32(self.gain)
        except AudioError as error:
            self.damage = error.what

    def _mixed(self, block: Audio, channels: int) -> Audio:
        mixed = map_channels(block, channels)
        if self._mixes:
            self._of_channels.add(_to_int16(block))
            self._power += float(np.vdot(block, block)) / len(block)
            self._mixed_power += float(np.vdot(mixed, mixed)) / len(mixed)
        return mixed

    @property
    def seconds(self) -> float:
        """Duration of the recording, with what is missing."""
        return max(self.read, self.declared or 0 if self.damage else 0) / self.sample_rate

    @property
    def missing_seconds(self) -> float:
        """Duration that the headers give and that cannot be read."""
        return self.seconds - self.read / self.sample_rate

    @property
    def sha256(self) -> str:
        """Hash of the PCM."""
        return self._digest.hexdigest()

    @property
    def exceeds_full_scale(self) -> bool:
        """Whether 16 bits would cut its waveform; a lossy decoder's slight excess is cut, as players do."""
        lossless = self._subtype.startswith(_LOSSLESS)
        return self.gain == 1 and self.levels.decoded_peak > (1 if lossless else _LOSSY_PEAK)

    @cached_property
    def _channel_amplitudes(self) -> npt.NDArray[np.float32]:
        return self._of_channels.finish()

    def cancels(self, start: int, stop: int) -> bool:
        """Whether channels sound in an interval, in samples of the PCM, in which their mix is silent."""
        frames_per_sample = self.sample_rate / self._recipe.sample_rate / self._channel_frame
        first, last = (math.ceil(place * frames_per_sample) for place in (start, stop))
        # With a margin, because the mix of many channels of which one sounds is faint, too.
        threshold = 10 ** (self._recipe.silence_dbfs / 20) * max(_CANCELLED_AMPLITUDE, 2 * self.channels)
        return bool((self._channel_amplitudes[first:last] >= threshold).any())

    @property
    def unmix(self) -> str:
        """The fix where the channels cancel."""
        return "set channels: 2" if self.channels == 2 else "convert it to the channels that matter first"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about a recording that is used anyway."""
        found = [*self._notes]
        if self.gain != 1:
            excess = -20 * np.log10(self.gain)
            found.append(f"over full scale: its peak is {excess:+.3g} dBFS; scaled by {self.gain:.6g} ({-excess:+.3g} dB)")
        if self._mixed_power < _CANCELLED_POWER * self._power:
            lost = -10 * np.log10(max(self._mixed_power / self._power, 1e-12))
            found.append(f"its channels largely cancel in the mix, which is {lost:.0f} dB quieter: {self.unmix}")
        return (*found, *warnings(self.levels, self.sample_rate, self._recipe.sample_rate))


def _to_int16(block: Audio) -> Pcm16:
    scaled = np.rint(block * np.float32(2**15))
    pcm: Pcm16 = np.clip(scaled, -(2**15), 2**15 - 1, out=scaled).astype(np.int16)
    return pcm
