"""What a result keeps of its recording: pitch and rhythm, measured on short windows spread over both.

The windows depend on the length of the recording alone: one for each 16 s, at most a hundred, of 4 s; of a short recording its
middle half, at least 2 s. So a long recording costs a quarter of its seconds or less, and ten hours cost as much as 27 minutes.
Recording and result are measured apart, each as it streams by, mixed to mono and at the same rate; what remains of a window are
its pitches and onsets.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.metrics.onsets import matches, onsets
from rave_dist.audio.metrics.pitch import deviation, pitches
from rave_dist.audio.types import Audio
from rave_dist.records import Preservation

_RATE = 22050
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 4000.0  # voices, instruments, and most whistles of birds
_EVERY = 2  # a pitch every 23 ms
_PART_SECONDS, _MOST_WINDOWS = 16.0, 100
_WINDOW_SECONDS, _LEAST_SECONDS = 4.0, 2.0


def windows(seconds: float) -> list[tuple[float, float]]:
    """Start and length in seconds of each window of a recording."""
    count = min(_MOST_WINDOWS, max(1, int(seconds / _PART_SECONDS)))
    length = min(seconds, _WINDOW_SECONDS, max(_LEAST_SECONDS, seconds / 2))
    return [(seconds * (number + 0.5) / count - length / 2, length) for number in range(count)]


class Features:
    """Pitches and onsets of a stream in its windows, in one pass and for any blocks.

    Args:
        seconds: length of the recording, which decides on the windows.
        sample_rate: of the stream, in Hz.

    Attributes:
        pitches: of each window in Hz, [frames], NaN where there is none.
        onsets: of each window in seconds from its start, [onsets].
    """

    def __init__(self, seconds: float, sample_rate: int) -> None:
        self.pitches: list[NDArray[np.float64]] = []
        self.onsets: list[NDArray[np.float64]] = []
        self._rate = sample_rate
        self._open = [(round(start * sample_rate), round(length * sample_rate)) for start, length in windows(seconds)][::-1]
        self._pieces: list[Audio] = []
        self._position = 0

    def of(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        """The blocks, float32 [C, T], each measured before it is given, and the end of the stream."""
        for block in blocks:
            self._add(block)
            yield block
        while self._open:  # the stream was shorter
            self._measure()

    def _add(self, block: Audio) -> None:
        end = self._position + block.shape[1]
        while self._open and self._open[-1][0] < end:
            first, length = self._open[-1]
            piece = block[:, max(0, first - self._position) : max(0, first + length - self._position)]
            self._pieces.append(piece.mean(axis=0, dtype=np.float32))
            if first + length > end:
                break
            self._measure()
        self._position = end

    def _measure(self) -> None:
        """Ends a window."""
        self._open.pop()
        sound = np.concatenate([np.zeros(0, np.float32), *self._pieces])
        self._pieces = []
        blocks = resample(iter([sound[None]]), rate=self._rate, new_rate=_RATE, channels=1)
        sound = np.concatenate([np.zeros((1, 0), np.float32), *blocks], axis=1)[0]
        self.pitches.append(pitches(sound, _RATE, lowest_hz=_LOWEST_HZ, highest_hz=_HIGHEST_HZ, every=_EVERY))
        self.onsets.append(onsets(sound, _RATE))


def compare(source: Features, result: Features) -> Preservation:
    """What a result keeps of its recording; both have been measured to their ends."""
    pairs = zip(source.pitches, result.pitches, strict=True)
    x, y = (np.concatenate(each) for each in zip(*(_of_one_length(*pair) for pair in pairs), strict=True))
    cents, kept = deviation(x, y)
    found = sum(matches(a, b) for a, b in zip(source.onsets, result.onsets, strict=True))
    wanted, made = (sum(map(len, each.onsets)) for each in (source, result))
    return Preservation(
        pitch_cents=None if cents is None else round(cents, 1),
        pitch_kept=None if kept is None else round(kept, 3),
        onset_f_measure=round(2 * found / (wanted + made), 3) if wanted else None,
    )


class Medians:
    """The median of each quantity over the files that have it; eight bytes are kept for a value."""

    def __init__(self) -> None:
        self._found = {name: array("d") for name in Preservation.model_fields}

    def add(self, item: Preservation) -> None:
        """Adds a file."""
        for name, values in self._found.items():
            if (value := getattr(item, name)) is not None:
                values.append(value)

    def copy(self) -> Medians:
        """Another one, which starts with the same."""
        other = Medians()
        for name, values in self._found.items():
            other._found[name].extend(values)
        return other

    @property
    def preserved(self) -> Preservation:
        """The medians so far."""
        return Preservation(**{name: statistics.median(values) for name, values in self._found.items() if values})


def _of_one_length(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The second as long as the first: what a shorter result lacks has no pitch."""
    return x, np.pad(y[: len(x)], (0, max(0, len(x) - len(y))), constant_values=np.nan)
