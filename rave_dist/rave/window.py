"""The training windows that a model accepts: long enough for its distances after the crop, in whole latent frames."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rave_dist.errors import ConfigurationError


def band_crop(model: Any) -> tuple[int, int]:
    """Samples per band that the multiband distance crops at both ends, as ``rave.core.valid_signal_crop`` does."""
    left, right = (int(value) for value in model.receptive_field)
    if not model.valid_signal_crop or not left + right:
        return 0, 0
    bands = int(model.pqmf.n_band) * int(model.n_channels)
    return left // bands, -(-right // bands)


def check_window(model: Any, window: int) -> None:
    """Refuses a window that this model cannot be trained with.

    Args:
        model: a ``rave.RAVE`` whose receptive field is set (`rave_dist.training.evaluation.receptive_field`).
        window: samples.

    Raises:
        ConfigurationError: too short for the distances after the crop, or not a whole number of latent frames; the fix names
            the nearest window that works.
    """
    left, right = band_crop(model)
    bands = int(model.pqmf.n_band)
    hop = latent_hop(model)
    needed = max(
        _longest_transform(model.audio_distance, model.discriminator),
        bands * (_longest_transform(model.multiband_audio_distance) + left + right),
    )
    smallest = math.ceil((needed + 1) / hop) * hop
    if window < smallest:
        raise ConfigurationError(
            f"a window of {window} samples is too short for this model, whose receptive field is "
            f"{' + '.join(str(int(v)) for v in model.receptive_field)} samples",
            where="window",
            fix=f"window: {max(2 ** math.ceil(math.log2(smallest)), smallest)} (at least {smallest})",
        )
    if window % hop:
        raise ConfigurationError(
            f"a window of {window} samples is not a whole number of latent frames of {hop} samples",
            where="window",
            fix=f"window: {math.ceil(window / hop) * hop}",
        )


def latent_hop(model: Any) -> int:
    """Samples per latent frame."""
    parameter = next(model.parameters())
    audio = torch.zeros(1, model.n_channels, 2**15, dtype=parameter.dtype, device=parameter.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return int(audio.shape[-1] // model.encode(audio).shape[-1])
    finally:
        model.train(training)


def _longest_transform(*modules: nn.Module) -> int:
    """The fewest samples that every spectral transform in some modules can take, less one.

    A centred transform reflects half a window at each end, which needs more than half a window of signal; the others need a
    whole one.
    """
    needs = [0]
    for module in modules:
        for part in module.modules():
            n_fft = getattr(part, "n_fft", None)
            if isinstance(n_fft, int):
                needs.append(n_fft // 2 if getattr(part, "center", True) else n_fft - 1)
    return max(needs)
