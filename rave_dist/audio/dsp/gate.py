"""A gate that follows one recording and acts on another: where the recording has no sound, the other is faded to silence.

The recording is judged in hops of 5 to 11 ms. A hop has sound if in any channel the power of any third of an octave, over 7
hops, is the given number of dB above the noise floor there: so hum and wind neither hide a call of another pitch nor keep the
gate open. Digital silence, and all below a given peak, has no sound either.

The gain is 1 in hops with sound, rises before them within 10 ms, stays for 50 ms, and falls within 100 ms; elsewhere it is 0.
Times are integers in units of 1 / (rate · new rate) seconds, so the gain at a sample does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from rave_dist.audio.dsp.chunks import cut
from rave_dist.audio.dsp.noise_profile import window_for
from rave_dist.audio.dsp.spectral_gate import EDGE_FRAMES, HOPS_PER_WINDOW, spectra
from rave_dist.audio.types import Audio

Hops = NDArray[np.bool_]

_ATTACK_MS, _HOLD_MS, _RELEASE_MS = 10, 50, 100
OPENING_MS, CLOSING_MS = _ATTACK_MS, _HOLD_MS + _RELEASE_MS
"""For how long before and after a sound the gate is open."""

_SMOOTHED_HOPS = 7
_LEAST_HZ = 80
_HOPS_AT_ONCE = 256
_CONTEXT_HOPS = 8
_SAMPLES_AT_ONCE = 1 << 16
_NEVER = 1 << 61


def hop_of(sample_rate: int) -> int:
    """The hop of the gate at a sample rate, in samples."""
    return len(window_for(sample_rate)) // HOPS_PER_WINDOW


def sounding(
    blocks: Iterable[Audio], *, sample_rate: int, floor: Audio | None = None, above_db: float = 0.0, peak: float = 0.0
) -> Iterator[Hops]:
    """Which hops of a stream have sound, in constant memory.

    Args:
        blocks: consecutive blocks, float32 [channels, n].
        sample_rate: in Hz.
        floor: the noise floor, [channels, bins]; None: only ``peak`` decides.
        above_db: by how much a third of an octave must be above the noise floor.
        peak: the least magnitude in a hop.

    Yields:
        Consecutive hops, [n]; there may be some after the end of the stream.
    """
    window, hop = window_for(sample_rate), hop_of(sample_rate)
    bands = _third_octaves(len(window), sample_rate)
    least = None if floor is None else np.add.reduceat(floor.astype(np.float64), bands, axis=-1) * 10 ** (above_db / 10)
    context = _CONTEXT_HOPS * hop
    skipped = _CONTEXT_HOPS
    for chunk in cut(_mirrored(blocks, context), hop=hop, core=_HOPS_AT_ONCE * hop, context=(context, context)):
        magnitude = np.abs(chunk.samples).max(axis=0).reshape(-1, hop).max(axis=1)
        found = (magnitude >= peak) & (magnitude > 0)
        if least is not None:
            found &= np.any([_above(c, at, window, bands) for c, at in zip(chunk.samples, least, strict=True)], axis=0)
        yield found[chunk.core.start // hop : -(-chunk.core.stop // hop)][skipped:]
        skipped = 0


def _mirrored(blocks: Iterable[Audio], edge: int) -> Iterator[Audio]:
    """A stream with its first and last ``edge`` samples mirrored at its ends, where hum would otherwise start with a click."""
    held: list[Audio] = []
    before, length = edge, 0
    for block in blocks:
        held.append(block)
        length += block.shape[1]
        if length > 2 * edge:
            joined = np.pad(np.concatenate(held, axis=1), ((0, 0), (before, 0)), "symmetric")
            yield joined[:, :-edge]
            held, before, length = [joined[:, -edge:]], 0, edge
    if length:
        yield np.pad(np.concatenate(held, axis=1), ((0, 0), (before, 2 * edge)), "symmetric")


def _third_octaves(size: int, sample_rate: int) -> NDArray[np.int64]:
    """The first bin of every band; the last band ends at half the sample rate."""
    last = size // 2
    first = min(max(1, round(_LEAST_HZ * size / sample_rate)), last)
    edges = first * 2.0 ** (np.arange(3 * int(np.log2(size))) / 3)
    return np.unique(np.round(edges[edges < last]).astype(np.int64)) if first < last else np.array([last])


def _above(sound: Audio, least: NDArray[np.float64], window: Audio, bands: NDArray[np.int64]) -> Hops:
    frames = spectra(sound, window)[EDGE_FRAMES:-EDGE_FRAMES]
    power = np.add.reduceat(np.square(np.abs(frames)).astype(np.float64), bands, axis=-1)
    return np.asarray((uniform_filter1d(power, _SMOOTHED_HOPS, axis=0, mode="nearest") >= least).any(axis=-1))


class Gate:
    """The gains of consecutive samples of an output, from the hops of its source that have sound.

    Args:
        hops: whether the source's consecutive hops have sound.
        rate: sample rate of the source, in Hz.
        new_rate: of the output.
        hop: samples of the source in a hop; None for those of `sounding`.
    """

    def __init__(self, hops: Iterable[Hops], *, rate: int, new_rate: int, hop: int | None = None) -> None:
        self._hops = iter(hops)
        self._rate = rate
        self._hop_time = (hop or hop_of(rate)) * new_rate
        self._attack, self._hold, self._release = (ms * rate * new_rate // 1000 for ms in (_ATTACK_MS, _HOLD_MS, _RELEASE_MS))
        self._held: Hops = np.zeros(0, np.bool_)
        self._first = 0  # number of the first hop that is held
        self._position = 0

    def read(self, samples: int) -> Audio:
        """The gains of the next samples. Output: [samples]."""
        stop = self._position + samples
        parts = [self._gains(at, min(at + _SAMPLES_AT_ONCE, stop)) for at in range(self._position, stop, _SAMPLES_AT_ONCE)]
        self._position = stop
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _gains(self, start: int, stop: int) -> Audio:
        self._hold_hops(start * self._rate - self._hold - self._release, stop * self._rate + self._attack)
        time = np.arange(start, stop, dtype=np.int64) * self._rate
        change = np.diff(self._held.astype(np.int8), prepend=0, append=0)
        starts, ends = ((self._first + np.flatnonzero(change == sign)) * self._hop_time for sign in (1, -1))
        passed = np.searchsorted(starts, time, side="right")
        since_end = time - np.concatenate([[-_NEVER], ends])[passed]
        until_start = np.concatenate([starts, [_NEVER]])[passed] - time
        fall = _ramp(1 - (since_end - self._hold) / max(1, self._release))
        return np.maximum(fall, _ramp(1 - until_start / max(1, self._attack))).astype(np.float32)

    def _hold_hops(self, start: int, stop: int) -> None:
        """Reads hops until the time ``stop``, and drops those that end before ``start``."""
        while (self._first + len(self._held)) * self._hop_time <= stop:
            more = next(self._hops, None)
            if more is None:
                break
            self._held = np.concatenate([self._held, more])
        past = min(max(0, start // self._hop_time - self._first), len(self._held))
        self._held = self._held[past:]
        self._first += past


def _ramp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 at 0 to 1 at 1, with no slope at either end; a polynomial, which is rounded in the same way everywhere."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
