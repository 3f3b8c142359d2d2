"""Where a recording sounds.

The recording is cut into frames of L samples. A frame's swing, ``(max - min) / 2`` over its samples, is its level without the
recording's offset; it is quiet where this stays below the threshold in every channel. A run of quiet frames at least as long
as ``silence_seconds`` is silence: it is cut out, but for what is kept after the sound before it and before the sound after it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rave_dist.audio.types import Pcm16
from rave_dist.dataset.recipe import Recipe


class Swings:
    """Collects a stream's swing frame by frame: 4 bytes a frame, whatever the stream's length.

    Args:
        frame: samples of a frame, L.
    """

    def __init__(self, frame: int) -> None:
        self._frame = frame
        self._rest: Pcm16 | None = None
        self._swings: list[npt.NDArray[np.float32]] = []

    def add(self, pcm: Pcm16) -> None:
        """Takes the next block, int16 [channels, n]."""
        if self._rest is not None:
            pcm = np.concatenate([self._rest, pcm], axis=1)
        whole = pcm.shape[1] // self._frame
        self._rest = pcm[:, whole * self._frame :].copy()
        if whole:
            frames = pcm[:, : whole * self._frame].reshape(len(pcm), whole, self._frame)
            self._swings.append(_swing(frames))

    def finish(self) -> npt.NDArray[np.float32]:
        """Every frame's swing, float32 [frames], full scale 1; the last frame may be shorter than L."""
        if self._rest is not None and self._rest.shape[1]:
            if not self._swings:  # too short for an offset to be told from a sound
                self._rest = np.concatenate([self._rest, np.zeros_like(self._rest[:, :1])], axis=1)
            self._swings.append(_swing(self._rest[:, None, :]))
        return np.concatenate(self._swings) if self._swings else np.zeros(0, dtype=np.float32)


def _swing(frames: Pcm16) -> npt.NDArray[np.float32]:
    spread = frames.max(axis=2).astype(np.int32) - frames.min(axis=2)
    swing: npt.NDArray[np.float32] = (spread.max(axis=0) / np.float32(2**16)).astype(np.float32)
    return swing


def sounding_spans(swings: npt.NDArray[np.float32], *, samples: int, recipe: Recipe) -> tuple[tuple[int, int], ...]:
    """The stretches to keep, as [start, stop) in samples, in order; none where all is silent.

    Args:
        swings: of every frame, as `Swings` gives them.
        samples: length of the recording.
        recipe: threshold, lengths and margins.
    """
    loud = swings >= 10 ** (recipe.silence_dbfs / 20)
    if not loud.any():
        return ()
    # A sound on both outer sides makes every quiet run one with two ends.
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud, [True]]).astype(np.int8)))
    after = round(recipe.keep_after_seconds * recipe.sample_rate)
    before = round(recipe.keep_before_seconds * recipe.sample_rate)
    spans: list[tuple[int, int]] = []
    start = 0
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        quiet_start, quiet_stop = first * recipe.frame, min(last * recipe.frame, samples)
        if quiet_stop - quiet_start < recipe.silence_seconds * recipe.sample_rate:
            continue
        cut_start = quiet_start + after if first else 0
        cut_stop = quiet_stop - before if last < len(loud) else samples
        if cut_start > start:
            spans.append((start, cut_start))
        start = cut_stop
    if start < samples:
        spans.append((start, samples))
    return tuple(spans)
