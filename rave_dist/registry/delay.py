"""The delay of a streaming export: how many samples its output lags behind the offline export's for the same audio.

A cached convolution looks ahead by waiting, so each part of the network lags by a whole number of samples. The encoder's lag is
the shift of the samples that affect one latent frame; the decoder's is where the cross-correlation of both outputs for the same
latents is largest. For all encoders and decoders except v1's, the streaming output equals the offline output of audio that is
shifted to a frame, with exactly this lag. v1's streaming branches do not line up: its lag is that of the loudest branch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rave_dist.rave.exportable_noise import place


def streaming_delay(offline: Any, streaming: Any, receptive_field: tuple[int, int]) -> int:
    """The delay in samples.

    Args:
        offline: an `OfflineRave`, not yet compiled.
        streaming: a `ScriptedRave` of the same weights with cached convolutions, not yet compiled; its state is cleared.
        receptive_field: of ``offline``, in samples.
    """
    context = sum(receptive_field)
    encoder = _first_sample(offline, context) - _first_sample(streaming, context)
    return encoder + _decoder_delay(offline, streaming, context)


def _first_sample(model: Any, context: int) -> int:
    """The first sample that affects a latent frame, relative to the frame's own."""
    hop = int(model.hop)
    frame = -(-context // hop) + 2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, model.n_channels, 2 * frame * hop, generator=generator).mul_(0.1).requires_grad_()
    model.forget()
    h = model.analyse(x)[..., frame]
    (gradient,) = torch.autograd.grad((h * torch.randn(h.shape, generator=generator)).sum(), x)
    model.forget()
    first: int = int(gradient[0].abs().amax(0).nonzero()[0]) - frame * hop
    return first


def _decoder_delay(offline: Any, streaming: Any, context: int) -> int:
    frames = 4 * (-(-context // offline.hop) + 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z = offline.latents.decode(torch.randn(1, offline.latent_size, frames, generator=generator), *place(0, 0), 1.0, 1.0)
        streaming.forget()
        reference, delayed = offline.synthesise(z, *place(0, 0), 0.0), streaming.synthesise(z, *place(0, 0), 0.0)
        streaming.forget()
    return _lag(reference.double(), delayed.double(), most=2 * context)


def _lag(reference: Tensor, delayed: Tensor, *, most: int) -> int:
    """The lag from 0 to ``most`` where the cross-correlation of two sounds is largest."""
    size = 2 * reference.shape[-1]
    spectrum = torch.fft.rfft(delayed, size) * torch.fft.rfft(reference, size).conj()
    correlation = torch.fft.irfft(spectrum, size).sum((0, 1))
    return int(correlation[: most + 1].argmax())
