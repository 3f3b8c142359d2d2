"""The discriminator in one dimension is RAVE's: features, gradients of the audio and of every weight."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.step.discriminators import lean_discriminator

torch.set_num_threads(1)
WINDOW = 5000  # no multiple of any period


def discriminator(*config: str, channels: int = 1) -> Any:
    text = configure(config, {"CAPACITY": 4, "LATENT_SIZE": 4}, sample_rate=44100, channels=channels)
    torch.manual_seed(0)
    return build_model(text, channels=channels).discriminator.double()


def as_rave_orders(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Features of a period, ``[B · p, K, H]``, as ``[B, K, H, p]``."""
    return ours.unflatten(0, (theirs.shape[0], -1)).permute(0, 2, 3, 1) if theirs.dim() == 4 else ours


@pytest.mark.parametrize("channels", [1, 2])
def test_features_and_gradients_are_raves(channels: int) -> None:
    module = discriminator("v2_small", channels=channels)
    function = lean_discriminator(module)
    assert function is not module
    audio = torch.randn(2, channels, WINDOW, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for run in (module, function):
        x = audio.clone().requires_grad_()
        features = run(x)
        loss = sum((layer.square() * layer.abs().sqrt()).mean() for scale in features for layer in scale)
        found.append((features, torch.autograd.grad(loss, [x, *module.parameters()])))
    (theirs, their_gradients), (ours, our_gradients) = found
    assert [len(scale) for scale in ours] == [len(scale) for scale in theirs]
    for our_layer, their_layer in zip(*(itertools.chain.from_iterable(features) for features in (ours, theirs)), strict=True):
        assert torch.allclose(as_rave_orders(our_layer, their_layer), their_layer, rtol=1e-12, atol=1e-14)
    for our_gradient, their_gradient in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(our_gradient, their_gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [("v1",), ("v2_small", "spectral_discriminator"), ("v2_small", "descript_discriminator")], ids=str
)
def test_others_are_left_to_rave(config: tuple[str, ...]) -> None:
    module = discriminator(*config)
    x = 0.1 * torch.randn(1, 1, 4096, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(lean_discriminator(module)(x), module(x), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
