"""Noise as a function of absolute position: a sample gets the same noise however the audio is divided into chunks.

A counter-based generator: no state, only a hash of (seed, stream, absolute index). With M the 32-bit mixer

    M(x):  x ^= x >> 16;  x *= 0x21f0aaad;  x ^= x >> 15;  x *= 0x735a2d97;  x ^= x >> 15      (mod 2^32)

(its shifts and multipliers were found by C. Wellons's search for mixers with little bias), two keys k1, k2 mixed from
seed and stream, and the 64-bit counter c = index * channels + channel split into its halves,

    h = M(M(low(c) ^ k1) ^ k2 ^ high(c)),      u = floor(h / 2^8) / 2^23 - 1,  uniform in [-1, 1).

Both multipliers are below 2^31, so that products stay below 2^63 and int64 arithmetic is exact on every device.

TorchScript compiles these functions: literals instead of module constants, and no postponed annotations here.
"""

import torch
from torch import Tensor, nn


def mix(x: Tensor) -> Tensor:
    """Mixes integers in [0, 2^32) by a bijection; any shape, int64."""
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & 0xFFFFFFFF
    return x ^ (x >> 15)


def place(position: int, seed: int, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Positions and seeds ``[rows]`` for rows of one sound: row r has the noise of ``seed + r``."""
    return torch.full((rows,), position, dtype=torch.int64), seed + torch.arange(rows)


def uniform(like: Tensor, stream: int, seed: Tensor, channels: int, start: Tensor, length: int) -> Tensor:
    """Uniform noise in [-1, 1).

    Args:
        like: gives dtype and device.
        stream: independent noises of one seed have different streams.
        seed: of each row, ``[rows]``, int64.
        channels: number of channels.
        start: absolute index of each row's first sample, ``[rows]``, int64.
        length: number of samples.

    Returns:
        ``[rows, channels, length]``; element (r, c, i) depends only on stream, seed[r], channels, c and start[r] + i.
    """
    row = seed.to(like.device)
    key = mix((row & 0xFFFFFFFF) ^ mix(((row >> 32) & 0xFFFFFFFF) ^ (stream * 0x3C6EF372 & 0xFFFFFFFF)))
    second_key = mix(key ^ 0x5BD1E995)
    index = start.to(like.device).reshape(-1, 1, 1) + torch.arange(length, device=like.device)
    counter = index * channels + torch.arange(channels, device=like.device).unsqueeze(1)
    low = counter & 0xFFFFFFFF
    high = (counter >> 32) & 0xFFFFFFFF
    hashed = mix(mix(low ^ key.reshape(-1, 1, 1)) ^ second_key.reshape(-1, 1, 1) ^ high)
    return (hashed >> 8).to(like.dtype) / 8388608 - 1


def gaussian(like: Tensor, stream: int, seed: Tensor, channels: int, start: Tensor, length: int) -> Tensor:
    """Normal noise of mean 0 and variance 1 by Box and Muller's transform of two uniform ones; as `uniform` otherwise."""
    radius = uniform(like, 2 * stream, seed, channels, start, length)
    angle = uniform(like, 2 * stream + 1, seed, channels, start, length)
    return torch.sqrt(-2 * torch.log((1 - radius) / 2)) * torch.cos(torch.pi * angle)


def impulse_responses(amplitudes: int, size: int) -> Tensor:
    """The matrix that turns band amplitudes into a filter, as RAVE (after DDSP) designs it.

    A zero-phase response is the inverse real FFT of the amplitudes (length 2n - 2), centred, windowed by a Hann window, cut or
    padded to ``size`` and moved back to start at 0. All of that is linear in the amplitudes: one matrix does it.

    Returns:
        ``[amplitudes, size]``; float32.
    """
    response = torch.fft.irfft(torch.eye(amplitudes, dtype=torch.float64))
    length = response.shape[-1]
    response = response.roll(length // 2, -1) * torch.hann_window(length, dtype=torch.float64)
    response = nn.functional.pad(response, (0, size - length))  # a negative pad cuts
    return response.roll(-(length // 2), -1).float()


class FilteredNoise(nn.Module):
    """RAVE's noise generator on positional noise.

    Its network gives, for each frame of N samples and each band, amplitudes a; with u the noise of that frame

        h = mod_sigmoid(a - 5) @ impulse_responses,      y[m] = sum over k <= m of u[k] h[m - k],  m < N,

    frame by frame, nothing carried over. So noise at an absolute index is the same in every chunk that starts on a frame.

    Args:
        net: the generator's network, ``[B, F, T] -> [B, bands * amplitudes, T / size]``.
        bands: bands times audio channels.
        size: N, samples of a frame in the band domain.
    """

    def __init__(self, net: nn.Module, *, bands: int, size: int, amplitudes: int) -> None:
        super().__init__()
        self.net = net
        self.bands = bands
        self.size = size
        self.filters: Tensor
        self.register_buffer("filters", impulse_responses(amplitudes, size))

    def forward(self, x: Tensor, position: Tensor, seed: Tensor, level: float) -> Tensor:
        """Noise for features ``[B, F, T]`` whose first samples have the absolute indices ``position``: ``[B, bands, T]``."""
        amplitude = 2 * torch.sigmoid(self.net(x) - 5) ** 2.3 + 1e-7
        rows, _, frames = amplitude.shape
        # Contiguous, for one product of matrices instead of one for each frame.
        amplitude = amplitude.permute(0, 2, 1).contiguous().reshape(rows, frames, self.bands, -1)
        response = amplitude @ self.filters
        noise = uniform(x, 0, seed, self.bands, position, frames * self.size)
        noise = noise.reshape(rows, self.bands, frames, self.size).permute(0, 2, 1, 3)
        padded = 2 * self.size
        y = torch.fft.irfft(torch.fft.rfft(noise, padded) * torch.fft.rfft(response, padded), padded)[..., : self.size]
        scaled: Tensor = level * y.permute(0, 2, 1, 3).reshape(rows, self.bands, frames * self.size)
        return scaled


class NoNoise(nn.Module):
    """For a decoder without a noise generator, or before phase 2 has trained it."""

    def forward(self, x: Tensor, position: Tensor, seed: Tensor, level: float) -> Tensor:
        """A zero of shape ``[1]``, to be broadcast."""
        return torch.zeros(1, dtype=x.dtype, device=x.device)
