"""The principal axes of a latent space, for exports with fewer dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rave_dist.errors import DatasetError
from rave_dist.rave.imports import rave_module
from rave_dist.rave.window import latent_hop
from rave_dist.training.data.loader import FULL_SCALE, PcmSegment, PcmStore
from rave_dist.training.evaluation.validation import measuring

_FRAMES_PER_LATENT = (10, 100)  # at least, at most


def fit_latent(model: Any, segments: Sequence[PcmSegment], *, window: int, device: torch.device | str) -> int:
    """Computes the principal axes of the latent space, for exports with fewer dimensions.

    As in RAVE's validation: PCA of the latent means; sets ``latent_mean``, ``latent_pca`` (rows are axes, the strongest
    first) and ``fidelity`` (cumulative share of the variance). RAVE uses 2 % of the data and fails if that has fewer frames
    than latents. Here windows are spread evenly over all given audio and overlap as necessary for ten to a hundred frames
    per latent. Models without a variational encoder are not changed.

    Args:
        model: a ``rave.RAVE``.
        segments: audio of the instrument; training audio is allowed.
        window: samples per window.
        device: of the model.

    Returns:
        The number of frames; 0 for models without a variational encoder.

    Raises:
        DatasetError: there is no audio.
    """
    if not isinstance(model.encoder, rave_module("blocks").VariationalEncoder):
        return 0
    pcm, parameter, size = PcmStore(segments), next(model.parameters()), int(model.latent_size)
    frames_per_window = window // latent_hop(model)
    fewest, most = (math.ceil(n * size / frames_per_window) for n in _FRAMES_PER_LATENT)
    hop = window
    while len(tiles := pcm.tiles(window, hop=hop)) < fewest and hop > 1:
        hop //= 2
    if not tiles:
        raise DatasetError("there is no audio to fit the latent space on", fix="add recordings")
    stride = max(1, len(tiles) // most)
    frames = []
    with measuring(model):
        for tile in tiles[::stride]:
            x = pcm.window(*tile, window)[None].to(device).to(parameter.dtype) / FULL_SCALE
            frames.append(model.encode(x).chunk(2, 1)[0][0].T.double())  # the means, not the scales
        mean, axes, fidelity = principal_axes(torch.cat(frames))
        model.latent_mean.copy_(mean)
        model.latent_pca.copy_(axes)
        model.fidelity.copy_(fidelity)
    return len(frames) * frames_per_window


def principal_axes(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[L]``, principal axes ``[L, L]`` (rows, strongest first, largest entry positive), cumulative variance ``[L]``.

    Args:
        frames: ``[N, L]``, float64; with fewer frames than latents the axes are still orthonormal.
    """
    mean = frames.mean(0)
    centred = frames - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(frames) - 1))
    variance, axes = variance.flip(0).clamp(min=0), axes.T.flip(0)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    total = variance.sum()
    if total == 0:  # a network with constant output: any single axis is complete
        return mean, axes, torch.ones_like(variance)
    return mean, axes, variance.cumsum(0) / total
