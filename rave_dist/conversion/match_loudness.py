"""Gives an output the loudness of its recording, with one gain for the whole file.

The gain is known only after the last sample, so the samples are kept in a temporary file as float32, and memory is constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rave_dist.audio.metrics.loudness import LEAST_SAMPLE_RATE, SILENCE_LUFS, LoudnessMeter
from rave_dist.audio.types import Audio
from rave_dist.errors import from_os_error
from rave_dist.temporary import temporary_folder

_BYTES_AT_ONCE = 4 << 20
_NOTICED_LU = 0.1


def match_loudness(
    blocks: Iterable[Audio], target: float, *, sample_rate: int, channels: int, notes: list[str]
) -> Iterator[Audio]:
    """A stream with the gain that gives it an integrated loudness (BS.1770), or less where its peak would exceed full scale.

    Silence, and what is shorter than 0.4 s, gets no gain except to keep its peak within full scale.

    Args:
        blocks: float32 [channels, n].
        target: in LUFS; -70 if the loudness of the recording is not defined.
        sample_rate: in Hz.
        channels: of every block.
        notes: a remark is appended if the loudness is not reached.

    Raises:
        StoreError: the disk of the temporary folder cannot be written or is full.
    """
    measurable = sample_rate >= LEAST_SAMPLE_RATE
    meter = LoudnessMeter(sample_rate=sample_rate, channels=channels) if measurable else None
    peak = 0.0
    with temporary_folder("loudness") as folder:
        path = Path(folder) / "samples"
        with path.open("wb") as file:
            for block in blocks:
                if block.size:
                    peak = max(peak, float(np.abs(block).max()))
                    if meter is not None:
                        meter.add(block)
                    with _disk_errors(folder):
                        file.write(block.T.tobytes())
                    yield block[:, :0]  # so that a stream which others read too does not get ahead of them
            with _disk_errors(folder):
                file.flush()
        loudness = SILENCE_LUFS if meter is None else meter.integrated
        wanted = target - loudness if min(target, loudness) > SILENCE_LUFS else 0.0
        possible = -20 * math.log10(peak) if peak else math.inf
        if wanted > possible + _NOTICED_LU:
            notes.append(
                f"{wanted - possible:.1f} LU quieter than the recording: a gain of {wanted:+.1f} dB would clip the peak"
            )
        elif not measurable or min(target, loudness) <= SILENCE_LUFS < max(target, loudness):
            notes.append("the loudness is not matched: that of the recording or of the output is not defined")
        gain = np.float32(10 ** (wanted / 20) if wanted <= possible else 1 / peak)
        with path.open("rb") as file:
            while data := file.read(_BYTES_AT_ONCE // (4 * channels) * 4 * channels):
                yield np.clip(gain * np.frombuffer(data, np.float32).reshape(-1, channels).T, -1, 1)


@contextmanager
def _disk_errors(folder: str) -> Iterator[None]:
    """Errors of the temporary file, and not of the sources and models that the samples come from."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, where=folder) from error
