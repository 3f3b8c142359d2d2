"""A model that fails on some sounds."""

import torch
from torch import Tensor, nn


class Fussy(nn.Module):
    """Breaks on loud sounds, as no published model should."""

    @torch.jit.export
    def convert(self, x: Tensor, position: int, seed: int, noise: float, latent_noise: float = 0.0) -> Tensor:
        if float(x.abs().max()) > 0.9:
            raise RuntimeError("too loud")
        return x

    def forward(self, x: Tensor) -> Tensor:
        return x
