"""Positional noise: what it depends on, how it is spread, and that RAVE's filtering of it is RAVE's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rave_dist.rave.exportable_noise import FilteredNoise, gaussian, mix, place, uniform
from rave_dist.rave.imports import rave_module

LIKE = torch.zeros(1, dtype=torch.float64)


def drawn(
    draw: Callable[..., Tensor], stream: int, seed: int, rows: int, channels: int, start: int, length: int, like: Tensor = LIKE
) -> Tensor:
    """Rows of one sound."""
    position, seeds = place(start, seed, rows)
    return draw(like, stream, seeds, channels, position, length)


def _mixed(x: int) -> int:
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def test_mixing_is_exact_integer_arithmetic() -> None:
    words = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0xDEADBEEF, *range(3, 2**32, 2**32 // 997)]
    assert mix(torch.tensor(words)).tolist() == [_mixed(word) for word in words]


@pytest.mark.parametrize("start", [0, 5_000_000_000, 2**40 - 1000])
def test_noise_depends_on_the_absolute_index_only(start: int) -> None:
    whole = drawn(uniform, 0, 3, 2, 16, start, 4000)
    assert torch.equal(drawn(uniform, 0, 3, 2, 16, start + 1234, 500), whole[..., 1234:1734])


def test_a_row_is_the_next_seed() -> None:
    rows = drawn(uniform, 0, 40, 3, 4, 0, 100)
    for row in range(3):
        assert torch.equal(rows[row : row + 1], drawn(uniform, 0, 40 + row, 1, 4, 0, 100))


def test_noise_goes_on_where_32_bits_end() -> None:
    across = drawn(uniform, 0, 0, 1, 16, 2**28 - 50, 100)  # 16 channels: index 2^28 is counter 2^32
    assert not torch.equal(across[..., 50:], drawn(uniform, 0, 0, 1, 16, 0, 50))
    assert across.unique().numel() == across.numel()


def test_uniform_noise_is_flat_white_and_independent() -> None:
    streams = torch.cat([drawn(uniform, stream, seed, 2, 4, 0, 1 << 16) for stream in (0, 2) for seed in (0, 10**12)])
    signals = streams.reshape(-1, 1 << 16)
    assert -1 <= float(signals.min()) < -0.9999
    assert 0.9999 < float(signals.max()) < 1
    counts = torch.histc(signals, 64, -1, 1)
    expected = signals.numel() / 64
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 120  # 63 degrees of freedom: 1 in 100,000 is above 121
    several_sigma = 6 / 256
    correlations = torch.corrcoef(signals) - torch.eye(len(signals))
    assert float(correlations.abs().max()) < several_sigma
    for lag in (1, 2, 8, 64, 4096):
        assert float((signals[:, lag:] * signals[:, :-lag]).mean(1).abs().max() * 3) < several_sigma


def test_gaussian_noise_is_normal() -> None:
    x = drawn(gaussian, 1, 0, 1, 4, 0, 1 << 16)
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.var()) == pytest.approx(1, abs=0.02)
    assert float((x**4).mean()) == pytest.approx(3, abs=0.1)
    assert float(x.abs().max()) > 4


def test_single_precision_has_the_same_values() -> None:
    assert torch.equal(drawn(uniform, 0, 1, 1, 2, 0, 999).float(), drawn(uniform, 0, 1, 1, 2, 0, 999, LIKE.float()))


@pytest.mark.parametrize(("ratios", "amplitudes"), [((4, 4, 4), 5), ((2, 2, 2), 5), ((2, 2, 2), 32)])
@pytest.mark.parametrize("channels", [1, 2])
def test_filtering_is_raves_own(
    monkeypatch: pytest.MonkeyPatch, ratios: tuple[int, ...], amplitudes: int, channels: int
) -> None:
    size, bands = torch.tensor(ratios).prod().item(), 3 * channels
    generator = rave_module("blocks").NoiseGeneratorV2(
        in_size=6, hidden_size=8, data_size=3, ratios=ratios, noise_bands=amplitudes, n_channels=channels
    )
    ours = FilteredNoise(generator.net, bands=bands, size=size, amplitudes=amplitudes).double()
    x = torch.randn(2, 6, 10 * size, dtype=torch.float64)
    given = drawn(uniform, 0, 7, 2, bands, 40 * size, 10 * size, x)

    def rand_like(shape: Tensor, **_: Any) -> Tensor:
        frames = given.reshape(2, bands, 10, size).permute(0, 2, 1, 3)
        assert frames.shape == shape.shape
        return (frames + 1) / 2

    monkeypatch.setattr(torch, "rand_like", rand_like)
    with torch.no_grad():
        expected = generator.double()(x)
        y = ours(x, *place(40 * size, 7, 2), 1.0)
        assert float(expected.abs().max()) > 0
        assert float((y - expected).abs().max()) < 1e-6 * float(expected.abs().max())
        assert torch.allclose(ours(x, *place(40 * size, 7, 2), 0.5), y / 2)
        assert not ours(x, *place(40 * size, 7, 2), 0.0).any()
