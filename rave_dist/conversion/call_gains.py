"""Gains that give each call of an output the loudness that it has in the recording.

A call is a stretch of hops with sound, as the gate judges them (`rave_dist.audio.dsp.gate`); what is nearer than the gate's own
times is one call. Its loudness is that of its K-weighted power (BS.1770) without further gating, because a call may be shorter
than a block of 400 ms. Its gain holds over the call; between two calls the gain changes by the same number of dB per second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.dsp.gate import CLOSING_MS, OPENING_MS, Hops, hop_of
from rave_dist.audio.metrics.loudness import SILENCE_LUFS, KWeighting, lufs
from rave_dist.audio.types import Audio
from rave_dist.conversion.match_loudness import NOT_DEFINED

ABOVE_DB = 12.0
"""By how much a call is above the noise floor, if no gate says otherwise."""

_NOTICED = 10 ** (0.1 / 20)


@dataclass
class _Call:
    """From its first hop to the one after its last.

    Powers are summed over its hops with sound, of which there are ``hops``; the peak is that of the output from the call before
    to the call after it, because the gain of a call also acts there, in part.
    """

    start: int
    end: int
    hops: int = 0
    source: float = 0.0
    output: float = 0.0
    peak: float = 0.0


class CallGains:
    """The gains of an output; see `rave_dist.conversion.match_loudness.Gains`.

    Args:
        hops: whether the consecutive hops of the recording have sound.
        source: the recording with the output's channels, float32 [channels, n] each.
        rate: sample rate of the recording, in Hz, at least 4000.
        new_rate: of the output, likewise.
        channels: of the output.
    """

    def __init__(self, hops: Iterable[Hops], source: Iterable[Audio], *, rate: int, new_rate: int, channels: int) -> None:
        self._rate, self._new_rate, self._hop = rate, new_rate, hop_of(rate)
        self._decisions = _Held(hops)
        recording = _PerHop(1, self._hop, KWeighting(sample_rate=rate, channels=channels))
        self._source = _Held(recording.add(block)[0] for block in source)
        self._output = _PerHop(rate, self._hop * new_rate, KWeighting(sample_rate=new_rate, channels=channels))
        self._nearest = -(-(OPENING_MS + CLOSING_MS) * rate // (1000 * self._hop))
        self._calls: list[_Call] = []
        self._done = 0
        self._since = 0.0  # the output's peak since the last call
        self._times, self._gains = np.zeros(1, np.int64), np.zeros(1)

    def add(self, block: Audio) -> None:
        """See `Gains`."""
        power, peak = self._output.add(block)
        self._add(power, peak)

    def finish(self) -> str | None:
        """See `Gains`."""
        self._add(*self._output.rest())
        found = self._loud_calls()
        if not found:
            peak = max([self._since, *(call.peak for call in self._calls)])
            self._gains = -np.log(np.maximum([peak], 1.0))
            return NOT_DEFINED if self._calls else "the loudness is not matched: there are no calls above the noise floor"
        # The same sum of powers means another mean where an output has more samples per hop.
        wanted = np.sqrt([call.source * self._new_rate / (call.output * self._rate) for call in found])
        possible = 1 / np.array([call.peak for call in found])
        opening, closing = (ms * self._rate * self._new_rate // 1000 for ms in (OPENING_MS, CLOSING_MS))
        hop = self._hop * self._new_rate
        self._times = np.array([time for call in found for time in (call.start * hop - opening, call.end * hop + closing)])
        self._gains = np.repeat(np.log(np.minimum(wanted, possible)), 2)
        limited = int((wanted > possible * _NOTICED).sum())
        if not limited:
            return None
        calls = "the only call is" if len(found) == 1 else f"{limited} of {len(found)} calls are"
        return f"{calls} quieter than in the recording: more would clip"

    def read(self, start: int, stop: int) -> Audio:
        """See `Gains`."""
        times = np.arange(start, stop, dtype=np.int64) * self._rate
        return np.exp(np.interp(times, self._times, self._gains)).astype(np.float32)

    def _loud_calls(self) -> list[_Call]:
        """The calls that get a gain; the peaks of those between them, and after the last one, are theirs."""
        found: list[_Call] = []
        between = 0.0
        for call in self._calls:
            if self._is_loud(call):
                found.append(call)
                call.peak = max(call.peak, between)
                between = 0.0
            else:
                between = max(between, call.peak)
                if found:
                    found[-1].peak = max(found[-1].peak, call.peak)
        if found:
            found[-1].peak = max(found[-1].peak, self._since)
        return found

    def _is_loud(self, call: _Call) -> bool:
        """Whether neither the recording nor the output is silent in a call."""
        samples = call.hops * self._hop
        source, output = call.source / samples, call.output * self._rate / (samples * self._new_rate)
        return bool((lufs(np.array([source, output])) > SILENCE_LUFS).all())

    def _add(self, output: NDArray[np.float64], peak: NDArray[np.float64]) -> None:
        """Adds consecutive hops to the calls."""
        source, hops = self._source.take(len(output)), self._decisions.take(len(output))
        count = min(len(source), len(hops))  # the recording may end within the output's last hop
        sounds = hops[:count].astype(np.bool_) & (peak[:count] > 0)  # what was silenced before is no part of a call
        edges = np.flatnonzero(np.diff(np.pad(sounds.astype(np.int8), 1)))
        past = 0
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            since = max(self._since, float(peak[past:start].max(initial=0)))
            if not self._calls or self._done + start - self._calls[-1].end > self._nearest:
                if self._calls:
                    self._calls[-1].peak = max(self._calls[-1].peak, since)
                self._calls.append(_Call(self._done + start, 0))
            call = self._calls[-1]
            call.end = self._done + end
            call.hops += end - start
            call.source += float(source[start:end].sum())
            call.output += float(output[start:end].sum())
            call.peak = max(call.peak, since, float(peak[start:end].max()))
            self._since, past = 0.0, end
        self._since = max(self._since, float(peak[past:].max(initial=0)))
        self._done += len(output)


class _PerHop:
    """The K-weighted energy and the peak of the consecutive hops of a stream, for any blocks.

    Hop k begins with the first sample n of which ``n * step >= k * hop``.
    """

    def __init__(self, step: int, hop: int, weighting: KWeighting) -> None:
        self._step, self._hop, self._weighting = step, hop, weighting
        self._power, self._peak = np.zeros(0), np.zeros(0, np.float32)
        self._first = self._next = 0  # the first sample that is held, and the number of the next hop

    def add(self, block: Audio) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The hops that end in the next block."""
        if block.size:
            self._power = np.concatenate([self._power, self._weighting.power(block)])
            self._peak = np.concatenate([self._peak, np.abs(block).max(axis=0)])
        whole = (self._first + len(self._power)) * self._step // self._hop - self._next
        return self._take(max(0, whole))

    def rest(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The hop that the stream ends in."""
        return self._take(1) if len(self._power) else (np.zeros(0), np.zeros(0))

    def _take(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        starts = -(-np.arange(self._next, self._next + count + 1) * self._hop // self._step) - self._first
        if not count:
            return np.zeros(0), np.zeros(0)
        stop = int(min(starts[-1], len(self._power)))
        power = np.add.reduceat(self._power[:stop], starts[:-1])
        peak = np.maximum.reduceat(self._peak[:stop], starts[:-1]).astype(np.float64)
        self._power, self._peak = self._power[stop:], self._peak[stop:]
        self._first, self._next = self._first + stop, self._next + count
        return power, peak


class _Held:
    """Values of a stream that are taken in other numbers than they come."""

    def __init__(self, blocks: Iterable[NDArray[np.generic]]) -> None:
        self._blocks: Iterator[NDArray[np.generic]] = iter(blocks)
        self._held: NDArray[np.generic] = np.zeros(0)

    def take(self, count: int) -> NDArray[np.generic]:
        """The next values; fewer where the stream ends before."""
        parts = [self._held] if len(self._held) else []
        length = len(self._held)
        while length < count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            length += len(block)
        joined = np.concatenate(parts) if parts else np.zeros(0)
        self._held = joined[count:]
        return joined[:count]
