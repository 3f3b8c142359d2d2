"""What a person sees of the latent space, and what the decoder gets back of it."""

import pytest
import torch
from torch import nn

from rave_dist.rave.exportable import exposed_latents
from rave_dist.rave.exportable_latents import GaussianLatents, PlainLatents, QuantisedLatents, SphericalLatents
from rave_dist.rave.exportable_noise import place
from rave_dist.rave.imports import rave_module

D, F = 8, 50


@pytest.fixture
def rotation() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.linalg.qr(torch.randn(D, D))[0]


def test_all_components_give_the_mean_back(rotation: torch.Tensor) -> None:
    mean, h = torch.randn(D), torch.randn(2, 2 * D, F)
    latents = GaussianLatents(mean, rotation, exposed=D)
    assert torch.allclose(latents.decode(latents.encode(h, *place(0, 0), 0.0), *place(0, 0), 0.0, 1.0), h[:, :D], atol=1e-5)


def test_fewer_components_give_the_nearest_point_of_their_plane(rotation: torch.Tensor) -> None:
    mean, h = torch.randn(D), torch.randn(2, 2 * D, F)
    latents = GaussianLatents(mean, rotation, exposed=3)
    z = latents.encode(h, *place(0, 0), 0.0)
    assert z.shape == (2, 3, F)
    lost = h[:, :D] - latents.decode(z, *place(0, 0), 0.0, 1.0)
    assert float((rotation[:3] @ lost).abs().max()) < 1e-5  # nothing is lost along what is exposed
    assert float((rotation[3:] @ (h[:, :D] - mean[:, None]) - rotation[3:] @ lost).abs().max()) < 1e-5


def test_latent_noise_is_the_posterior_and_the_prior(rotation: torch.Tensor) -> None:
    h = torch.cat([torch.zeros(1, D, 20000), torch.full((1, D, 20000), 2.0)], 1)
    latents = GaussianLatents(torch.zeros(D), rotation, exposed=3)
    z = latents.encode(h, *place(0, 0), 1.0)
    deviation = float(nn.functional.softplus(torch.tensor(2.0))) + 1e-4
    assert z.std(-1).flatten().tolist() == pytest.approx([deviation] * 3, rel=0.03)
    hidden = rotation[3:] @ latents.decode(torch.zeros(1, 3, 20000), *place(0, 0), 1.0, 1.0)
    assert hidden.std(-1).flatten().tolist() == pytest.approx([1.0] * (D - 3), rel=0.03)
    later = latents.encode(h[..., 700:], *place(700, 0), 1.0)
    assert torch.allclose(later, z[..., 700:], atol=1e-5)


def test_noise_dimensions_follow_the_latents_and_can_be_silent() -> None:
    z = torch.randn(1, D, 20000)
    latents = PlainLatents(augmentation=4)
    full = latents.decode(z, *place(0, 0), 0.0, 1.0)
    assert torch.equal(full[:, :D], z)
    assert full[:, D:].std(-1).flatten().tolist() == pytest.approx([1.0] * 4, rel=0.03)
    assert not latents.decode(z, *place(0, 0), 0.0, 0.0)[:, D:].any()
    assert PlainLatents(augmentation=0).decode(z, *place(0, 0), 0.0, 1.0).shape == z.shape


def test_codes_are_raves_own() -> None:
    quantiser = rave_module("quantization").ResidualVectorQuantization(
        num_quantizers=3, dim=D, codebook_size=32, kmeans_init=False
    )
    quantiser.eval()
    layers = list(quantiser.layers)
    ours = QuantisedLatents(
        torch.stack([layer.codebook for layer in layers]),
        project_in=[layer.project_in for layer in layers],
        project_out=[layer.project_out for layer in layers],
        augmentation=2,
    )
    h = torch.randn(2, D, F) * 0.2
    codes = ours.encode(h, *place(0, 0, 2), 0.0)
    assert torch.equal(codes.long(), quantiser.encode(h))
    assert torch.allclose(ours.decode(codes, *place(0, 0, 2), 0.0, 0.0)[:, :D], quantiser(h)[0], atol=1e-6)
    assert ours.decode(codes + 100, *place(0, 0, 2), 0.0, 1.0).shape == (2, D + 2, F)  # a player may send anything
    assert bool(torch.isfinite(ours.decode(codes - 100, *place(0, 0, 2), 0.0, 1.0)).all())


def test_angles_are_raves_own_and_bring_the_direction_back() -> None:
    blocks = rave_module("blocks")
    h = torch.randn(2, D, F, dtype=torch.float64)
    latents = SphericalLatents()
    z = latents.encode(h, *place(0, 0), 0.0)
    assert torch.allclose(z, blocks.unit_norm_vector_to_angles(h.clone()))
    unit = latents.decode(z, *place(0, 0), 0.0, 1.0)
    assert torch.allclose(unit, h / h.norm(dim=1, keepdim=True))
    assert torch.allclose(unit, blocks.angles_to_unit_norm_vector(z.clone()))


def test_silence_and_the_poles_have_angles() -> None:
    latents = SphericalLatents()
    special = torch.stack([torch.zeros(D), *torch.eye(D), *-torch.eye(D)], -1).unsqueeze(0)
    unit = latents.decode(latents.encode(special, *place(0, 0), 0.0), *place(0, 0), 0.0, 1.0)
    assert torch.allclose(unit[..., 1:], special[..., 1:], atol=1e-6)
    assert torch.allclose(unit.norm(dim=1), torch.ones(1, special.shape[-1]))


@pytest.mark.parametrize(
    ("variances", "kept"),
    [
        ([1.0, 0, 0, 0, 0, 0, 0, 0], 4),  # RAVE would keep 1
        ([0.5, 0.3, 0.1, 0.07, 0.03, 0, 0, 0], 4),  # the index of the first above .95 is 3
        ([0.4, 0.2, 0.1, 0.1, 0.1, 0.06, 0.03, 0.01], 8),  # 5, rounded up
        ([0.2] * 4 + [0.1, 0.04, 0.03, 0.01, 0.01, 0.01], 8),
        ([0.1] * 10, 10),  # 9 would be 16: there are 10
        ([0.0] * 8, 8),  # never analysed
    ],
)
def test_number_of_latents_follows_raves_rule(variances: list[float], kept: int) -> None:
    assert exposed_latents(torch.tensor(variances).cumsum(0)) == kept
