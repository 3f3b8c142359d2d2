"""The latents that exports expose, between the encoder's output and the decoder's input: one module per kind of encoder.

All have the same two methods, so that `rave_dist.rave.exportable` need not know the kind:

- ``encode(h, frame, seed, level)``: network output ``[B, H, F]`` to exposed latents ``[B, exposed, F]``;
- ``decode(z, frame, seed, level, noise)``: exposed latents to the decoder's input ``[B, latent_size + augmentation, F]``.

``frame`` has the absolute index of each row's first latent frame, and ``seed`` each row's seed. ``level`` scales what RAVE
draws around the latents (0: their mean), ``noise`` the noise dimensions of the decoder's input. No draw depends on how time is
divided into chunks.

TorchScript compiles these modules: no postponed annotations here.
"""

import torch
from torch import Tensor, nn

from rave_dist.rave.exportable_noise import gaussian


class GaussianLatents(nn.Module):
    """Variational: posterior mean and scale; exposed are the leading principal components.

    Args:
        mean: ``[D]``, the mean latent of the training set.
        components: ``[D, D]``, principal components as rows, the most varied first.
        exposed: how many of them are kept.
    """

    def __init__(self, mean: Tensor, components: Tensor, *, exposed: int) -> None:
        super().__init__()
        self.exposed = exposed
        self.hidden = mean.shape[0] - exposed
        self.mean: Tensor
        self.components: Tensor
        self.register_buffer("mean", mean.reshape(-1, 1).clone())
        self.register_buffer("components", components.clone())

    def encode(self, h: Tensor, frame: Tensor, seed: Tensor, level: float) -> Tensor:
        """Rotates the posterior mean (plus ``level`` of its standard deviation times noise) onto the components."""
        z, scale = h.chunk(2, 1)
        if level != 0:
            deviation = nn.functional.softplus(scale) + 1e-4
            z = z + level * deviation * gaussian(z, 1, seed, z.shape[1], frame, z.shape[2])
        return torch.matmul(self.components[: self.exposed], z - self.mean)

    def decode(self, z: Tensor, frame: Tensor, seed: Tensor, level: float, noise: float) -> Tensor:
        """Rotates back; the components that are not exposed are ``level`` times normal noise, at 0 the mean."""
        hidden = torch.zeros(z.shape[0], self.hidden, z.shape[2], dtype=z.dtype, device=z.device)
        if level != 0:
            hidden = level * gaussian(z, 2, seed, self.hidden, frame, z.shape[2])
        return torch.matmul(self.components.t(), torch.cat([z, hidden], 1)) + self.mean


class PlainLatents(nn.Module):
    """Wasserstein, and a discrete model whose quantiser was never switched on: the network's output itself.

    Args:
        augmentation: dimensions of normal noise that the decoder was trained to receive after the latents.
    """

    def __init__(self, *, augmentation: int) -> None:
        super().__init__()
        self.augmentation = augmentation

    def encode(self, h: Tensor, frame: Tensor, seed: Tensor, level: float) -> Tensor:
        """The same."""
        return h

    def decode(self, z: Tensor, frame: Tensor, seed: Tensor, level: float, noise: float) -> Tensor:
        """The same, with the noise dimensions appended."""
        return torch.cat([z, noise * gaussian(z, 3, seed, self.augmentation, frame, z.shape[2])], 1)


class QuantisedLatents(nn.Module):
    """Discrete: residual vector quantisation; exposed are the codes, one dimension per quantiser.

    Each stage picks the codeword nearest to what the stages before it left over; the latent is the sum of the codewords.

    Args:
        codebooks: ``[Q, K, E]``.
        project_in, project_out: per quantiser, between the latent's D dimensions and the codebook's E.
    """

    def __init__(
        self, codebooks: Tensor, *, project_in: list[nn.Module], project_out: list[nn.Module], augmentation: int
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.size = codebooks.shape[1]
        self.codebooks: Tensor
        self.register_buffer("codebooks", codebooks.clone())
        self.project_in = nn.ModuleList(project_in)
        self.project_out = nn.ModuleList(project_out)

    def encode(self, h: Tensor, frame: Tensor, seed: Tensor, level: float) -> Tensor:
        """Codes as whole numbers in float, ``[B, Q, F]``."""
        residual = h.permute(0, 2, 1)
        codes: list[Tensor] = []
        for stage, (project_in, project_out) in enumerate(zip(self.project_in, self.project_out)):  # noqa: B905 (TorchScript)
            codebook = self.codebooks[stage]
            x = project_in(residual)
            code = (codebook.pow(2).sum(1) - 2 * torch.matmul(x, codebook.t())).argmin(-1)
            residual = residual - project_out(nn.functional.embedding(code, codebook))
            codes.append(code)
        return torch.stack(codes, 1).to(h.dtype)

    def decode(self, z: Tensor, frame: Tensor, seed: Tensor, level: float, noise: float) -> Tensor:
        """The sum of the codewords, with the noise dimensions appended; codes outside the codebook are clamped."""
        codes = torch.clamp(z, 0, self.size - 1).long()
        latent = torch.zeros(1, 1, 1, dtype=z.dtype, device=z.device)
        for stage, project_out in enumerate(self.project_out):
            latent = latent + project_out(nn.functional.embedding(codes[:, stage], self.codebooks[stage]))
        latent = latent.permute(0, 2, 1)
        return torch.cat([latent, noise * gaussian(latent, 3, seed, self.augmentation, frame, z.shape[2])], 1)


class SphericalLatents(nn.Module):
    """Spherical: a point on the unit sphere in D dimensions; exposed are its D - 1 angles, scaled to [-1, 1].

    With t_i the norm of the coordinates from i on, angle_i = atan2(t_(i+1), x_i) in [0, pi], the last one
    atan2(x_D, x_(D-1)) in [0, 2 pi). atan2 keeps its precision near the poles and has a value for the zero vector, which a
    network without biases makes of silence.
    """

    def encode(self, h: Tensor, frame: Tensor, seed: Tensor, level: float) -> Tensor:
        """Angles ``[B, D - 1, F]``."""
        tails = h.pow(2).flip(1).cumsum(1).flip(1).sqrt()
        inner = torch.atan2(tails[:, 1:-1], h[:, :-2]) / torch.pi
        last = torch.atan2(h[:, -1:], h[:, -2:-1]) / (2 * torch.pi)
        return 2 * torch.cat([inner, last - torch.floor(last)], 1) - 1

    def decode(self, z: Tensor, frame: Tensor, seed: Tensor, level: float, noise: float) -> Tensor:
        """x_i = cos(angle_i) times the product of the sines before it."""
        angle = torch.cat([z[:, :-1] + 1, 2 * (z[:, -1:] + 1)], 1) * (torch.pi / 2)
        one = torch.ones_like(angle[:, :1])
        return torch.cat([angle.cos(), one], 1) * torch.cat([one, angle.sin().cumprod(1)], 1)
