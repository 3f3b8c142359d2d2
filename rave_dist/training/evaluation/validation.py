"""The distance of a model's reconstruction from held-out audio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rave_dist.errors import DatasetError
from rave_dist.rave.imports import rave_module
from rave_dist.training.data.loader import FULL_SCALE, PcmArray, PcmSegment, PcmStore

SEED = 20_221_102  # any constant: all validations use the same random numbers
_SECONDS_AT_ONCE = 60.0  # of audio per call of the distance, to bound its memory
_WINDOWS_AT_ONCE = 8  # per call of the model; constant, because it determines the random numbers of each window
_EXCERPT_WINDOWS = 16


@contextmanager
def measuring(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradients, with a fixed seed; everything is restored afterwards."""
    training = model.training
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(SEED)
            yield
    finally:
        model.train(training)


def validate(model: Any, segments: Sequence[PcmSegment], *, window: int, device: torch.device | str) -> dict[str, float]:
    """RAVE's own distances between held-out audio and its reconstruction.

    Every held-out sample is included: segments are tiled by windows, and the last of a segment overlaps the one before it.
    All windows are measured as one batch, so that a silent window does not cause a division by zero. As in RAVE's
    validation the decoder receives a sampled latent. The random numbers are the same every time, and the global random
    state is restored.

    Args:
        model: a ``rave.RAVE``; its mode is restored.
        segments: held-out audio.
        window: samples per window.
        device: of the model.

    Returns:
        ``validation``, the sum of RAVE's audio distances; each of them as ``validation/<name>``; and
        ``validation/multiband_<name>`` for those of the bands.

    Raises:
        DatasetError: there is no held-out audio.
    """
    pcm = PcmStore(segments)
    tiles = pcm.tiles(window)
    if not tiles:
        raise DatasetError("there is no held-out audio to validate on", fix="give more recordings")
    per_group = max(1, int(_SECONDS_AT_ONCE * model.sr) // window)
    sums: dict[str, float] = {}
    with measuring(model):
        for start in range(0, len(tiles), per_group):
            group = [pcm.window(*tile, window) for tile in tiles[start : start + per_group]]
            batches = (group[i : i + _WINDOWS_AT_ONCE] for i in range(0, len(group), _WINDOWS_AT_ONCE))
            pairs = [_reconstruct(model, torch.stack(batch).to(device)) for batch in batches]
            x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            for name, value in _distances(model, x, y).items():
                sums[name] = sums.get(name, 0.0) + value * len(group) / len(tiles)
    return sums


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording; ``pcm`` is int16, ``[C, samples]``."""

    pcm: PcmArray


def excerpt(segments: Sequence[PcmSegment], *, like: Sequence[PcmSegment], window: int) -> list[Excerpt]:
    """Up to sixteen windows spread evenly over the training audio, no more than the held-out audio has.

    They are measured by `validate` like held-out audio, so that the two distances are comparable.

    Args:
        segments: training audio.
        like: the held-out audio.
        window: samples per window; a shorter segment is used completely.
    """
    count = min(math.ceil(sum(segment.pcm.shape[-1] for segment in like) / window), _EXCERPT_WINDOWS)
    ends = np.cumsum([segment.pcm.shape[-1] for segment in segments])
    found = []
    for place in (np.arange(count) + 0.5) / max(count, 1) * ends[-1]:
        index = int(np.searchsorted(ends, place, side="right"))
        pcm = segments[index].pcm
        offset = int(place - ends[index]) + pcm.shape[-1] - window // 2
        offset = max(0, min(offset, pcm.shape[-1] - window))
        found.append(Excerpt(pcm[:, offset : offset + window]))
    return found


def _reconstruct(model: Any, pcm: Tensor) -> tuple[Tensor, Tensor]:
    parameter = next(model.parameters())
    x = pcm.to(parameter.dtype) / FULL_SCALE
    x = x + torch.rand(x.shape, device=x.device, dtype=x.dtype) / 2**16  # as in training: no window is digital silence
    y = model.decode(model.encoder.reparametrize(model.encode(x))[0])
    return x, y[..., : x.shape[-1]]


def _distances(model: Any, x: Tensor, y: Tensor) -> dict[str, float]:
    encode = rave_module("model")._pqmf_encode
    fullband = {name: float(value) for name, value in model.audio_distance(x, y).items()}
    multiband = model.multiband_audio_distance(encode(model.pqmf, x), encode(model.pqmf, y))
    return {
        "validation": sum(fullband.values()),
        **{f"validation/{name}": value for name, value in fullband.items()},
        **{f"validation/multiband_{name}": float(value) for name, value in multiband.items()},
    }
