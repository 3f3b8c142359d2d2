"""A stream of samples cut into chunks with context, so that a network's results on them join into its result on the whole.

A convolutional network with hop ``h`` and receptive field (L, R) computes output sample ``n`` from the inputs ``n - L`` to
``n + R`` and counts its frames from the first sample it is given. Let a chunk's core be ``[s, e)`` with ``s`` a multiple of
``h``, and give the network ``[s - L', e + R')``, where L' and R' are L and R rounded up to multiples of ``h``. Then frames
fall where the whole file's fall, everything that the core depends on is there, and the core's results are the whole file's.

At the ends there is nothing to give: the first chunk starts at 0 and the last ends at the stream's end, padded with zeros to
a multiple of ``h``, just as the whole file would be in one piece. So its edges are the whole file's edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from rave_dist.audio.types import Audio


class Chunk(NamedTuple):
    """A chunk of a stream, with context.

    ``samples`` [channels, multiple of hop] start at the stream's sample ``position``. Of their results those in ``core`` are
    valid and belong to the stream's samples from ``position + core.start``.
    """

    samples: Audio
    position: int
    core: slice


def round_up(samples: int, hop: int) -> int:
    """The least multiple of ``hop`` that is not below ``samples``."""
    return -(-samples // hop) * hop


def cut(blocks: Iterable[Audio], *, hop: int, core: int, context: tuple[int, int]) -> Iterator[Chunk]:
    """Cuts a stream into chunks; holds one chunk and one block at a time.

    The cores lie end to end from 0 to the last sample of the stream. A stream without samples has no chunks.

    Args:
        blocks: [channels, any length], in order.
        hop: samples per frame of the network.
        core: samples per chunk that are kept, rounded down to a multiple of ``hop``.
        context: (left, right) in samples, each rounded up to a multiple of ``hop``.

    Raises:
        ValueError: ``core`` is below ``hop``.
    """
    core = core // hop * hop
    if core <= 0:
        raise ValueError(f"a chunk needs at least {hop} samples")
    left, right = round_up(context[0], hop), round_up(context[1], hop)
    start = 0
    held = _Held()
    for block in blocks:
        held.append(block)
        while held.stop >= start + core + right:
            yield _chunk(held, start, start + core, start + core + right, left, hop)
            start += core
            held.drop_before(max(0, start - left))
    while start < held.stop:
        stop = min(start + core, held.stop)
        yield _chunk(held, start, stop, min(stop + right, held.stop), left, hop)
        start = stop
        held.drop_before(max(0, start - left))


def _chunk(held: _Held, start: int, stop: int, reach: int, left: int, hop: int) -> Chunk:
    position = max(0, start - left)
    samples = held.read(position, reach)
    samples = np.pad(samples, ((0, 0), (0, round_up(samples.shape[1], hop) - samples.shape[1])))
    return Chunk(samples, position, slice(start - position, stop - position))


class _Held:
    """The stretch ``[start, stop)`` of a stream that is still needed, as the blocks it came in."""

    def __init__(self) -> None:
        self._blocks: deque[Audio] = deque()
        self._start = 0
        self.stop = 0

    def append(self, block: Audio) -> None:
        if block.shape[1]:
            self._blocks.append(block)
            self.stop += block.shape[1]

    def drop_before(self, position: int) -> None:
        while self._blocks and self._start + self._blocks[0].shape[1] <= position:
            self._start += self._blocks.popleft().shape[1]

    def read(self, start: int, stop: int) -> Audio:
        parts = []
        at = self._start
        for block in self._blocks:
            length = block.shape[1]
            part = block[:, max(0, start - at) : max(0, min(length, stop - at))]
            if part.shape[1]:
                parts.append(part)
            at += length
        return np.concatenate(parts, axis=1)
