"""The principal axes of a latent space, for exports that keep the few that matter."""

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
    """Finds the latent space's principal axes, for exports that keep the few that matter.

    As RAVE at its validations: PCA of the latent means; ``latent_mean``, ``latent_pca`` (rows are axes, the strongest first)
    and ``fidelity`` (cumulative share of the variance) are set. RAVE takes them from 2 % of the data and fails when that gives
    fewer frames than latents; here windows come from all audio given, overlapping as much as ten frames for each latent
    need, and no more than a hundred, spread evenly. Models without a variational encoder have no such space and are left as
    they are.

    Args:
        model: a ``rave.RAVE``.
        segments: any audio of the instrument, training audio included.
        window: samples per window.
        device: where the model is.

    Returns:
        How many frames were looked at; 0 for models without a variational encoder.

    Raises:
        DatasetError: there is no audio.
    """
    if not isinstance(model.encoder, rave_module("blocks").VariationalEncoder):
        return 0
    pcm, parameter, size = PcmStore(segments, device="cpu"), next(model.parameters()), int(model.latent_size)
    frames_per_window = window // latent_hop(model)
    fewest, most = (math.ceil(n * size / frames_per_window) for n in _FRAMES_PER_LATENT)
    hop = window
    while len(tiles := pcm.tiles(window, hop=hop)) < fewest and hop > 1:
        hop //= 2
    if not tiles:
        raise DatasetError("there is no audio to fit the latent space on", fix="give more recordings")
    stride = max(1, len(tiles) // most)
    frames = []
    with measuring(model):
        for tile in tiles[::stride]:
            x = tile[None].to(device).to(parameter.dtype) / FULL_SCALE
            frames.append(model.encode(x).chunk(2, 1)[0][0].T.double())  # the means, not the scales
        mean, axes, fidelity = principal_axes(torch.cat(frames))
        model.latent_mean.copy_(mean)
        model.latent_pca.copy_(axes)
        model.fidelity.copy_(fidelity)
    return len(frames) * frames_per_window


def principal_axes(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[L]``, principal axes ``[L, L]`` (rows, strongest first, largest entry positive), cumulative variance ``[L]``.

    Args:
        frames: ``[N, L]``, float64; also fewer frames than latents: the axes are orthonormal all the same.
    """
    mean = frames.mean(0)
    centred = frames - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(frames) - 1))
    variance, axes = variance.flip(0).clamp(min=0), axes.T.flip(0)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    total = variance.sum()
    if total == 0:  # a network that says the same of everything: any one axis holds all there is
        return mean, axes, torch.ones_like(variance)
    return mean, axes, variance.cumsum(0) / total
