"""Levels of a recording, and warnings about it: clipping, DC offset, bandwidth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24}
_CLIPPED_SAMPLES = 16
_CLIPPED_SHARE = 1e-5
_DC = 0.01


class Levels:
    """Peak, mean power and offset of the PCM, and clipping of the recording itself; in one pass, whatever the blocks.

    Args:
        subtype: the recording's encoding, for what its full scale is.
        full_scale: the magnitude of clipped samples; None for that of the encoding.

    Attributes:
        samples: of the PCM.
        clipped_samples: of the recording.
        decoded_peak: largest magnitude as decoded, full scale 1.
    """

    def __init__(self, subtype: str, *, full_scale: float | None = None) -> None:
        # The largest positive value of n bits is 1 - 2^(1 - n); floats and lossy formats are clipped at about 1.
        self._full_scale = np.float32(full_scale or 1 - 2.0 ** (1 - _BITS.get(subtype, 16)))
        self._peak = 0
        self._power = 0.0
        self._sums: npt.NDArray[np.int64] | None = None
        self.samples = self._decoded_values = 0
        self.clipped_samples = 0
        self.decoded_peak = 0.0

    def add_decoded(self, block: npt.NDArray[np.float32]) -> None:
        """Adds the next block as decoded, float32 [channels, n]."""
        self._decoded_values += block.size
        peak = max(float(block.max()), -float(block.min())) if block.size else 0.0
        self.decoded_peak = max(self.decoded_peak, peak)
        if peak >= self._full_scale:
            self.clipped_samples += int(np.count_nonzero(np.abs(block) >= self._full_scale))

    def add(self, pcm: npt.NDArray[np.int16]) -> None:
        """Adds the next block as stored, int16 [channels, n]."""
        self._peak = max(self._peak, int(pcm.max()), -int(pcm.min()))
        values = pcm.astype(np.float64)
        self._power += float(np.vdot(values, values))
        sums = pcm.sum(axis=1, dtype=np.int64)
        self._sums = sums if self._sums is None else self._sums + sums
        self.samples += pcm.shape[1]

    @property
    def peak(self) -> float:
        """Largest magnitude, full scale 1."""
        return self._peak / 2**15

    @property
    def rms(self) -> float:
        """Root of the mean square over all channels, full scale 1."""
        if self._sums is None:
            return 0.0
        return float(np.sqrt(self._power / (self.samples * len(self._sums)))) / 2**15

    @property
    def dc(self) -> float:
        """Mean of the channel whose mean is farthest from zero, full scale 1."""
        if self._sums is None:
            return 0.0
        means = self._sums / self.samples / 2**15
        return float(means[np.argmax(np.abs(means))])

    @property
    def is_clipped(self) -> bool:
        """Whether more samples at full scale than a normalised recording has."""
        return self.counts_as_clipped(self.clipped_samples, self._decoded_values)

    @staticmethod
    def counts_as_clipped(clipped_samples: int, values: int) -> bool:
        """Whether a sound with this number of values, of all channels, counts as clipped."""
        return clipped_samples >= max(_CLIPPED_SAMPLES, _CLIPPED_SHARE * values)


def warnings(levels: Levels, sample_rate: int, dataset_rate: int) -> tuple[str, ...]:
    """Warnings about a recording that is used anyway.

    Args:
        levels: measured on it.
        sample_rate: as recorded, in Hz.
        dataset_rate: of the dataset, in Hz.
    """
    found: list[str] = []
    if levels.is_clipped:
        found.append(f"clipped: {levels.clipped_samples:,} samples at full scale")
    if abs(levels.dc) > _DC and levels.samples >= dataset_rate:
        found.append(f"DC offset of {levels.dc:+.3f} of full scale")
    if sample_rate < dataset_rate:
        found.append(f"recorded at {sample_rate} Hz: contains nothing above {sample_rate // 2} Hz")
    return tuple(found)
