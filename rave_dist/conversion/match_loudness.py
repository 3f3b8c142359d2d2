"""Gives an output the loudness of its recording: one gain for the whole file, or one for each call.

The gains are known only after the last sample, so the samples are kept in a temporary file as float32, and memory is constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from rave_dist.audio.metrics.loudness import LEAST_SAMPLE_RATE, SILENCE_LUFS, LoudnessMeter
from rave_dist.audio.types import Audio
from rave_dist.errors import from_os_error
from rave_dist.temporary import temporary_folder

_BYTES_AT_ONCE = 4 << 20
_NOTICED_LU = 0.1

NOT_DEFINED = "the loudness is not matched: that of the recording or of the output is not defined"


class Gains(Protocol):
    """Finds out, while the samples of an output pass, by how much each is to be louder."""

    def add(self, block: Audio) -> None:
        """Is given the next block of the output, float32 [channels, n]."""

    def finish(self) -> str | None:
        """Is called after the last block; returns a remark if the loudness is not reached."""

    def read(self, start: int, stop: int) -> Audio:
        """The gains of some samples; float32, [stop - start] or [1]."""


def with_gains(blocks: Iterable[Audio], gains: Gains, *, channels: int, notes: list[str]) -> Iterator[Audio]:
    """A stream with gains that are known at its end, within full scale.

    Args:
        blocks: float32 [channels, n].
        gains: of its samples.
        channels: of every block.
        notes: the remark about the gains is appended.

    Raises:
        StoreError: the disk of the temporary folder cannot be written or is full.
    """
    with temporary_folder("loudness") as folder:
        path = Path(folder) / "samples"
        with path.open("wb") as file:
            for block in blocks:
                gains.add(block)
                with _disk_errors(folder):
                    file.write(block.T.tobytes())
                yield block[:, :0]  # so that a stream which others read too does not get ahead of them
            with _disk_errors(folder):
                file.flush()
        if remark := gains.finish():
            notes.append(remark)
        done = 0
        with path.open("rb") as file:
            while data := file.read(_BYTES_AT_ONCE // (4 * channels) * 4 * channels):
                block = np.frombuffer(data, np.float32).reshape(-1, channels).T
                yield np.clip(gains.read(done, done + block.shape[1]) * block, -1, 1)
                done += block.shape[1]


class FileGain:
    """The gain that gives an output an integrated loudness (BS.1770), or less where its peak would exceed full scale.

    Silence, and what is shorter than 0.4 s, gets no gain except to keep its peak within full scale.

    Args:
        target: in LUFS; -70 if the loudness of the recording is not defined.
        sample_rate: of the output, in Hz.
        channels: of the output.
    """

    def __init__(self, target: float, *, sample_rate: int, channels: int) -> None:
        measurable = sample_rate >= LEAST_SAMPLE_RATE
        self._meter = LoudnessMeter(sample_rate=sample_rate, channels=channels) if measurable else None
        self._target, self._peak, self._gain = target, 0.0, np.ones(1, np.float32)

    def add(self, block: Audio) -> None:
        """See `Gains`."""
        if block.size:
            self._peak = max(self._peak, float(np.abs(block).max()))
            if self._meter is not None:
                self._meter.add(block)

    def finish(self) -> str | None:
        """See `Gains`."""
        loudness, target, peak = SILENCE_LUFS if self._meter is None else self._meter.integrated, self._target, self._peak
        wanted = target - loudness if min(target, loudness) > SILENCE_LUFS else 0.0
        possible = -20 * math.log10(peak) if peak else math.inf
        self._gain = np.array([10 ** (wanted / 20) if wanted <= possible else 1 / peak], np.float32)
        if wanted > possible + _NOTICED_LU:
            return f"{wanted - possible:.1f} LU quieter than the recording: a gain of {wanted:+.1f} dB would clip the peak"
        if self._meter is None or min(target, loudness) <= SILENCE_LUFS < max(target, loudness):
            return NOT_DEFINED
        return None

    def read(self, start: int, stop: int) -> Audio:
        """See `Gains`."""
        return self._gain


@contextmanager
def _disk_errors(folder: str) -> Iterator[None]:
    """Errors of the temporary file, and not of the sources and models that the samples come from."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, where=folder) from error
