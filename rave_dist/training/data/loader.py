"""Training batches, made on the device: random windows of all audio, RAVE's augmentations.

RAVE's training chain, per window: a random crop; with probability 0.8 a random all-pass filter (20 Hz to 2 kHz, radius 0.99);
dequantisation by uniform noise of one 16-bit step. The differences here: windows are drawn from all audio, weighted by length,
rather than from chunks without their tails; a recording shorter than the window is placed at a random position in silence; the
dequantisation noise is read from a random position of a table of a million numbers. Further augmentations have their own
probabilities (`rave_dist.training.data.augmentations`), in this order: pitch, the all-pass, mute, dequantisation, compression,
gain, polarity.

All random numbers come from one generator on the CPU, so that a run draws the same batches on any device and a checkpoint only
needs the generator's state. Audio that does not fit a GPU stays where it is, usually in a file: a thread prepares the next
batch in page-locked memory while the device works on the present one. Wherever the audio is, the batches are bitwise the same:
each window is at any place of the dataset with the same probability, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rave_dist.errors import DatasetError
from rave_dist.extensions import AUGMENTATIONS
from rave_dist.options import STOCK_AUGMENTATIONS
from rave_dist.training.data import augmentations as effects
from rave_dist.training.data.phase_mangle import all_pass_, random_angles

FULL_SCALE = 2**15 - 1
"""The sample value that becomes 1.0, as in RAVE."""

_RESIDENT_SHARE = 1 / 16  # fraction of the device's free memory: other runs may share the card, and the steps need most of it
_MANGLE_RADIUS = 0.99
_NOISE_TABLE = 2**20
_COPY_SAMPLES = 2**22  # at once, of PCM that is copied to a device


class PcmArray(Protocol):
    """PCM in memory or in a file, int16, ``[C, samples]``; ``np.asarray`` reads it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and samples."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    def __getitem__(self, key: tuple[slice, slice], /) -> PcmArray:
        """A part."""

    def __array__(self) -> npt.NDArray[np.int16]:
        """The samples."""


class PcmSegment(Protocol):
    """A contiguous part of a recording; ``pcm`` is int16, ``[C, samples]``."""

    @property
    def pcm(self) -> PcmArray:
        """The samples."""


class PcmStore:
    """All segments of an instrument: where they are, or in one int16 tensor on a device.

    Args:
        segments: with at least one sample; empty ones are omitted.
        device: of a copy of all samples; None to read windows from the segments, for which no memory is needed.

    Raises:
        DatasetError: segments differ in channels.
    """

    def __init__(self, segments: Sequence[PcmSegment], *, device: torch.device | str | None = None) -> None:
        self._arrays = [segment.pcm for segment in segments if segment.pcm.shape[-1]]
        if len({array.shape[0] for array in self._arrays}) > 1:
            raise DatasetError("segments of one dataset differ in their number of channels", fix="ingest the recordings again")
        self.lengths = [int(array.shape[-1]) for array in self._arrays]
        self.channels = self._arrays[0].shape[0] if self._arrays else 1
        self._starts = [0, *np.cumsum(self.lengths).tolist()]
        self._copy: Tensor | None = None
        if device is not None:
            self._copy = torch.empty(self.channels, self.samples, dtype=torch.int16, device=device)
            for segment, length in enumerate(self.lengths):
                for offset in range(0, length, _COPY_SAMPLES):
                    piece = self._piece(segment, offset, min(offset + _COPY_SAMPLES, length))
                    self._copy[:, self._starts[segment] + offset :][:, : piece.shape[-1]] = piece

    @property
    def samples(self) -> int:
        """Total samples per channel."""
        return int(self._starts[-1])

    def window(self, segment: int, offset: int, size: int) -> Tensor:
        """``[C, size]`` samples of a segment from ``offset``; silence before its start and after its end."""
        first, last = max(offset, 0), min(offset + size, self.lengths[segment])
        if self._copy is None:
            piece = self._piece(segment, first, last)
        else:
            piece = self._copy[:, self._starts[segment] + first : self._starts[segment] + last]
        return torch.nn.functional.pad(piece, (first - offset, offset + size - last)) if piece.shape[-1] < size else piece

    def _piece(self, segment: int, first: int, last: int) -> Tensor:
        return torch.from_numpy(np.array(self._arrays[segment][:, first:last], np.int16))

    def tiles(self, size: int, *, hop: int | None = None) -> list[tuple[int, int]]:
        """Segment and offset of windows that cover every sample, one every ``hop`` (default: ``size``) samples.

        The last window of a segment is moved back to its end. A segment shorter than a window is centred in one, or, if
        windows overlap, placed at every multiple of ``hop``.
        """
        hop = hop or size
        return [
            (index, offset)
            for index, length in enumerate(self.lengths)
            for offset in _offsets(length - size, hop, overlap=hop < size)
        ]


def _offsets(last: int, hop: int, *, overlap: bool) -> list[int]:
    if last >= 0:
        return [*range(0, last, hop), last]
    return [*range(last, 1, hop)] if overlap else [last // 2]


@dataclass(frozen=True)
class _Cut:
    """A sampled batch.

    The places of all windows; of those to make, PCM ``[C, samples]``, concatenated, their lengths, their augmentations, and the
    offset of each row in the noise table; and the generator's state afterwards.
    """

    pcm: Tensor
    places: list[tuple[int, int]]
    sizes: list[int]
    draws: dict[str, effects.Draw]
    noise: list[int]
    state: Tensor


def fits(segments: Sequence[PcmSegment], device: torch.device) -> bool:
    """Whether PCM is kept on the device: always on a CPU; on a GPU if it takes at most a sixteenth of the free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(segment.pcm.nbytes for segment in segments) <= free * _RESIDENT_SHARE


class Windows:
    """An endless sequence of training batches.

    Args:
        segments: training audio.
        window: samples per window.
        batch: windows per batch.
        seed: of the generator.
        device: of the batches.
        sample_rate: in Hz.
        augment: probability of each augmentation, RAVE's phase mangle by default; None for plain windows,
            without dequantisation.
        resident: take windows from a copy of all PCM on a GPU (two bytes per sample), or on a CPU from the segments themselves;
            otherwise a thread reads them ahead. None: if it `fits`.
        rows: the windows of each batch to make, in this order; the random numbers of the others are drawn all the same. None
            for all.

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
        augment: Mapping[str, float] | None = STOCK_AUGMENTATIONS,
        resident: bool | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self._device = torch.device(device)
        resident = fits(segments, self._device) if resident is None else resident
        self._store = PcmStore(segments, device=self._device if resident and self._device.type == "cuda" else None)
        if not self._store.samples:
            raise DatasetError("there is no audio to train on", fix="give more recordings")
        self._window = window
        self._batch = batch
        self._rows = list(range(batch)) if rows is None else list(rows)
        self._sample_rate = sample_rate
        self._augment = augment
        self._generator = torch.Generator().manual_seed(seed)
        self._ends = torch.tensor(self._store.lengths, dtype=torch.int64).cumsum(0)
        self.places: list[tuple[int, int]] = []
        """Segment (empty ones not counted) and offset of each window of the last batch; a negative offset is silence first."""
        noise = torch.rand(_NOISE_TABLE + window, generator=self._generator) / 2**16
        self._noise = noise.to(self._device)
        self._state = self._generator.get_state()
        self._ahead = None if resident else ThreadPoolExecutor(max_workers=1, thread_name_prefix="windows")
        self._next: Future[_Cut] | None = None

    def next_batch(self) -> Tensor:
        """The next batch, or its windows to make, float32, ``[B, C, T]``, on the device."""
        if self._ahead is None:
            cut = self._cut()
        else:
            cut = (self._next or self._ahead.submit(self._cut)).result()
            self._next = self._ahead.submit(self._cut)
        self._state, self.places = cut.state, cut.places
        return self._made(cut)

    def _cut(self) -> _Cut:
        """Draws all random numbers of a batch, and copies the audio of the windows to make."""
        segments = torch.searchsorted(self._ends, self._draw(self._batch, int(self._ends[-1])), right=True).tolist()
        positions = torch.rand(self._batch, generator=self._generator, dtype=torch.float64).tolist()
        draws = effects.draw(self._augment or {}, self._batch, self._generator)
        channels = self._store.channels
        noise = self._draw(self._batch * channels, _NOISE_TABLE).tolist() if self._augment is not None else []
        sizes = [self._window] * self._batch
        for row, ratio in _ratios(draws).items():
            sizes[row] = effects.source_samples(self._window, ratio)
        places = [
            (segment, self._offset(segment, position, size))
            for segment, position, size in zip(segments, positions, sizes, strict=True)
        ]
        pcm = torch.cat([self._store.window(*places[row], sizes[row]) for row in self._rows], -1)
        if self._device.type == "cuda" and pcm.device.type == "cpu":
            pcm = pcm.pin_memory()
        if len(self._rows) < self._batch:
            sizes = [sizes[row] for row in self._rows]
            draws = {name: drawn.of_rows(self._rows) for name, drawn in draws.items()}
            noise = [offset for row in self._rows for offset in noise[row * channels : (row + 1) * channels]]
        return _Cut(pcm, places, sizes, draws, noise, self._generator.get_state())

    def _offset(self, segment: int, position: float, size: int) -> int:
        """The offset of a window for a random number in [0, 1), uniform over all positions in a segment."""
        room = self._store.lengths[segment] - size
        offset = int(position * (abs(room) + 1))
        return offset if room >= 0 else -offset

    def _draw(self, count: int, high: int) -> Tensor:
        return torch.randint(high, (count,), generator=self._generator)

    def _made(self, cut: _Cut) -> Tensor:
        """The batch on the device, augmented."""
        parts = torch.split(cut.pcm.to(self._device, non_blocking=True), cut.sizes, -1)
        x = torch.empty(len(parts), *parts[0].shape[:-1], self._window, device=self._device)
        ratios = _ratios(cut.draws)
        for index, part in enumerate(parts):
            if index in ratios:
                x[index] = effects.resample(part / FULL_SCALE, ratios[index], self._window)
            else:
                torch.div(part, FULL_SCALE, out=x[index])
        if self._augment is not None:
            self._change(x, cut)
        return x

    def _change(self, x: Tensor, cut: _Cut) -> None:
        """Augments a batch in place; dequantisation precedes everything that changes the size of a 16-bit step."""
        mangle = cut.draws.get("mangle")
        if mangle is not None and len(mangle.rows):
            angles = random_angles(mangle.values, sample_rate=self._sample_rate).to(self._device)
            all_pass_([x[row] for row in mangle.rows.tolist()], angles, _MANGLE_RADIUS)
        self._apply(cut, "mute", x, lambda rows, value: torch.zeros_like(rows))
        for row, offset in zip(x.flatten(0, 1), cut.noise, strict=True):
            row += self._noise[offset : offset + self._window]
        self._apply(cut, "compress", x, partial(effects.compress, sample_rate=self._sample_rate))
        self._apply(cut, "gain", x, effects.gain)
        self._apply(cut, "polarity", x, lambda rows, value: -rows)
        for name in effects.of_extensions(cut.draws):
            self._apply(cut, name, x, partial(AUGMENTATIONS[name].apply, sample_rate=self._sample_rate))

    def _apply(self, cut: _Cut, name: str, x: Tensor, effect: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Applies an augmentation to its rows of ``x``."""
        drawn = cut.draws.get(name)
        if drawn is not None and len(drawn.rows):
            rows = drawn.rows.to(self._device)
            x[rows] = effect(x.index_select(0, rows), drawn.values.to(self._device))

    def state_dict(self) -> dict[str, Any]:
        """The position in the sequence of batches after the last `next_batch`, without prepared ones."""
        return {"generator": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`, with the same segments, window, batch, seed and augmentations."""
        if self._next is not None:
            self._next.result()
            self._next = None
        self._state = state["generator"]
        self._generator.set_state(self._state)


def _ratios(draws: Mapping[str, effects.Draw]) -> dict[int, Fraction]:
    """The speed ratio of each row."""
    if "pitch" not in draws:
        return {}
    pitch = draws["pitch"]
    return {row: effects.pitch_ratio(value) for row, value in zip(pitch.rows.tolist(), pitch.values.tolist(), strict=True)}
