"""Batches made where they are used: the whole audio as int16 on the device, random windows, RAVE's augmentations.

RAVE's training chain, per window: a random crop; with probability 0.8 a random all-pass filter (20 Hz to 2 kHz, radius 0.99);
dequantisation by uniform noise of one step of 16 bits. The differences here: windows come from all audio, weighted by
length, rather than from chunks that lost their tails; a recording shorter than the window stands at a random place in
silence; the dequantisation noise is read at a random place of a table of a million numbers.

All random numbers come from one generator on the CPU, so that a run draws the same batches on any device, and its state is
all that a checkpoint needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rave_dist.errors import DatasetError
from rave_dist.training.augment import all_pass, random_angles

FULL_SCALE = 2**15 - 1
"""The sample value that becomes 1.0, as RAVE has it."""

_MANGLE_PROBABILITY = 0.8
_MANGLE_RADIUS = 0.99
_NOISE_TABLE = 2**20


class PcmSegment(Protocol):
    """A contiguous stretch of a recording: ``pcm`` is int16, ``[C, samples]``."""

    @property
    def pcm(self) -> npt.NDArray[np.int16]:
        """The samples."""


class PcmStore:
    """All segments of an instrument in one int16 tensor.

    Args:
        segments: at least one sample in all; empty ones are left out.
        device: where to keep them.

    Raises:
        DatasetError: segments that differ in channels.
    """

    def __init__(self, segments: Sequence[PcmSegment], *, device: torch.device | str) -> None:
        arrays = [segment.pcm for segment in segments if segment.pcm.shape[-1]]
        if len({array.shape[0] for array in arrays}) > 1:
            raise DatasetError("segments of one dataset differ in their number of channels", fix="ingest the recordings again")
        self.lengths = [int(array.shape[-1]) for array in arrays]
        self.starts = [0, *np.cumsum(self.lengths).tolist()][:-1] if arrays else []
        joined = np.concatenate(arrays, axis=-1) if arrays else np.zeros((1, 0), np.int16)
        self.pcm = torch.from_numpy(np.ascontiguousarray(joined)).to(device)

    @property
    def samples(self) -> int:
        """Samples per channel in all."""
        return int(self.pcm.shape[-1])

    def window(self, segment: int, offset: int, size: int) -> Tensor:
        """``[C, size]`` samples from ``offset`` of a segment on; a negative offset, and what lies behind the segment's end, is
        silence."""
        start, length = self.starts[segment], self.lengths[segment]
        if offset >= 0 and offset + size <= length:
            return self.pcm[:, start + offset : start + offset + size]
        out = torch.zeros(self.pcm.shape[0], size, dtype=self.pcm.dtype, device=self.pcm.device)
        first, last = max(offset, 0), min(offset + size, length)
        out[:, first - offset : last - offset] = self.pcm[:, start + first : start + last]
        return out

    def tiles(self, size: int, *, hop: int | None = None) -> list[Tensor]:
        """Windows ``[C, size]`` that together hold every sample: one every ``hop`` (default: ``size``) samples, the last of a
        segment moved back to its end; a segment shorter than a window stands in the middle of one, or, if they overlap, at
        every ``hop``-th place."""
        hop = hop or size
        tiles: list[Tensor] = []
        for index, length in enumerate(self.lengths):
            tiles.extend(self.window(index, offset, size) for offset in _offsets(length - size, hop, overlap=hop < size))
        return tiles


def _offsets(last: int, hop: int, *, overlap: bool) -> list[int]:
    if last >= 0:
        return [*range(0, last, hop), last]
    return [*range(last, 1, hop)] if overlap else [last // 2]


class Windows:
    """An endless sequence of training batches.

    Args:
        segments: training audio.
        window: samples per window.
        batch: windows per batch.
        seed: decides every batch.
        device: where batches are wanted.
        sample_rate: in Hz.
        augment: RAVE's phase mangle and dequantisation; without, the plain windows.
        resident: keep all PCM on ``device`` (two bytes a sample); else it stays in host memory and windows travel.

    Raises:
        DatasetError: there is no audio.
    """

    def __init__(
        self,
        segments: Sequence[PcmSegment],
        *,
        window: int,
        batch: int,
        seed: int,
        device: torch.device | str,
        sample_rate: int = 44100,
        augment: bool = True,
        resident: bool = True,
    ) -> None:
        self._store = PcmStore(segments, device=device if resident else "cpu")
        if not self._store.samples:
            raise DatasetError("there is no audio to train on", fix="give more recordings")
        self._window = window
        self._batch = batch
        self._device = torch.device(device)
        self._sample_rate = sample_rate
        self._augment = augment
        self._generator = torch.Generator().manual_seed(seed)
        self._ends = torch.tensor(self._store.lengths, dtype=torch.int64).cumsum(0)
        self.places: list[tuple[int, int]] = []
        """Segment (empty ones not counted) and offset of each window of the last batch; a negative offset is silence first."""
        noise = torch.rand(_NOISE_TABLE + window, generator=self._generator) / 2**16
        self._noise = noise.to(self._device)

    def next_batch(self) -> Tensor:
        """The next batch, float32, ``[B, C, T]``, on the device."""
        self.places = self._draw_places()
        pcm = torch.stack([self._store.window(*place, self._window) for place in self.places])
        x = pcm.to(self._device, non_blocking=True).to(torch.float32).div_(FULL_SCALE)
        return self._augmented(x) if self._augment else x

    def _draw_places(self) -> list[tuple[int, int]]:
        """Segment and offset of each window of a batch."""
        segments = torch.searchsorted(self._ends, self._draw(self._batch, int(self._ends[-1])), right=True).tolist()
        positions = torch.rand(self._batch, generator=self._generator, dtype=torch.float64).tolist()
        places = []
        for segment, position in zip(segments, positions, strict=True):
            room = self._store.lengths[segment] - self._window
            offset = int(position * (abs(room) + 1))
            places.append((segment, offset if room >= 0 else -offset))
        return places

    def _draw(self, count: int, high: int) -> Tensor:
        return torch.randint(high, (count,), generator=self._generator)

    def _augmented(self, x: Tensor) -> Tensor:
        chosen = torch.rand(self._batch, generator=self._generator) < _MANGLE_PROBABILITY
        uniform = torch.rand(self._batch, generator=self._generator, dtype=torch.float64)
        rows = chosen.nonzero().flatten()
        if len(rows):
            angles = random_angles(uniform[rows], sample_rate=self._sample_rate).to(self._device)
            rows = rows.to(self._device)
            x[rows] = all_pass(x[rows], angles, _MANGLE_RADIUS)
        offsets = self._draw(x.shape[0] * x.shape[1], _NOISE_TABLE).tolist()
        for row, offset in zip(x.flatten(0, 1), offsets, strict=True):
            row += self._noise[offset : offset + self._window]
        return x

    def state_dict(self) -> dict[str, Any]:
        """The place in the sequence of batches."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, with the same segments, window, batch and seed."""
        self._generator.set_state(state["generator"])
