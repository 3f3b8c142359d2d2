"""Silence detection.

A recording is divided into frames of L samples. A frame's amplitude, ``(max - min) / 2`` over its samples, does not depend
on the DC offset; a frame is quiet if its amplitude stays below the threshold in every channel. A run of quiet frames of at
least ``silence_seconds`` is silence. It is removed, except for a margin after the sound before it and one before the sound
after it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rave_dist.audio.types import Pcm16
from rave_dist.dataset.recipe import Recipe


class Amplitudes:
    """Collects the amplitude of each frame of a stream: 4 bytes per frame.

    Args:
        frame: samples of a frame, L.
    """

    def __init__(self, frame: int) -> None:
        self._frame = frame
        self._rest: Pcm16 | None = None
        self._amplitudes: list[npt.NDArray[np.float32]] = []

    def add(self, pcm: Pcm16) -> None:
        """Adds the next block, int16 ``[C, n]``."""
        if self._rest is not None:
            pcm = np.concatenate([self._rest, pcm], axis=1)
        whole = pcm.shape[1] // self._frame
        self._rest = pcm[:, whole * self._frame :].copy()
        if whole:
            frames = pcm[:, : whole * self._frame].reshape(len(pcm), whole, self._frame)
            self._amplitudes.append(_amplitude(frames))

    def finish(self) -> npt.NDArray[np.float32]:
        """The amplitude of every frame, float32 ``[frames]``, full scale 1; the last frame may be shorter than L."""
        if self._rest is not None and self._rest.shape[1]:
            if not self._amplitudes:  # too short to distinguish a DC offset from a sound
                self._rest = np.concatenate([self._rest, np.zeros_like(self._rest[:, :1])], axis=1)
            self._amplitudes.append(_amplitude(self._rest[:, None, :]))
        return np.concatenate(self._amplitudes) if self._amplitudes else np.zeros(0, dtype=np.float32)


def _amplitude(frames: Pcm16) -> npt.NDArray[np.float32]:
    spread = frames.max(axis=2).astype(np.int32) - frames.min(axis=2)
    amplitude: npt.NDArray[np.float32] = (spread.max(axis=0) / np.float32(2**16)).astype(np.float32)
    return amplitude


def sounding_spans(amplitudes: npt.NDArray[np.float32], *, samples: int, recipe: Recipe) -> tuple[tuple[int, int], ...]:
    """Intervals to keep, as [start, stop) in samples, in order; none if everything is silent.

    Args:
        amplitudes: of every frame, as `Amplitudes` gives them.
        samples: length of the recording.
        recipe: threshold, lengths and margins.
    """
    loud = amplitudes >= 10 ** (recipe.silence_dbfs / 20)
    if not loud.any():
        return ()
    # Padding with sound on both sides gives every quiet run two ends.
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
