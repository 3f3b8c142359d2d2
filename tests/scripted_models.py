"""Models for scripting that do what no published model should."""

import torch
from torch import Tensor, nn


class Fussy(nn.Module):
    """Breaks on loud sounds."""

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        if float(x.abs().max()) > 0.9:
            raise RuntimeError("too loud")
        return x

    def forward(self, x: Tensor) -> Tensor:
        return x


class Quiet(nn.Module):
    """Answers 100 dB below its input."""

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        return 1e-5 * x

    def forward(self, x: Tensor) -> Tensor:
        return x
