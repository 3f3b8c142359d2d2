"""Rows, which a model takes: channels, or pairs of them for a stereo model, with what their noise depends on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rave_dist.audio.types import Audio

Row = tuple[Tensor, ...]
"""What a function takes or returns for a row, each without the batch's dimension."""


def placed(x: Tensor, position: int, seed: int) -> list[Row]:
    """Rows of one sound with what their noise depends on: row r has that of ``seed + r``."""
    return [(row, torch.tensor(position), torch.tensor(seed + number)) for number, row in enumerate(x)]


def as_rows(samples: Audio, width: int) -> Tensor:
    """Channels [C, T] as rows [rows, width, T] for the model; an incomplete last row repeats its last channel."""
    rows = -(-len(samples) // width)
    samples = np.concatenate([samples, np.repeat(samples[-1:], rows * width - len(samples), axis=0)])
    return torch.from_numpy(samples.reshape(rows, width, -1))


def as_channels(y: Audio, channels: int) -> Audio:
    """Rows of the model [rows, width, T] as channels [C, T]; those of an incomplete last row are averaged."""
    out = y.reshape(y.shape[0] * y.shape[1], -1)
    if len(out) != channels:
        first = (len(y) - 1) * y.shape[1]
        out = np.concatenate([out[:first], out[first:].mean(axis=0, keepdims=True)])
    return np.asarray(out, dtype=np.float32)
