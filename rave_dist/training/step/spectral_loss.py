r"""RAVE's multi-scale spectral distance and its gradient, in one pass.

With A and B the magnitudes of the spectrograms of target x and output y at one scale (n samples, Hann window, a hop of n/4,
reflected edges), N their number of values and e a small constant, `rave.core.AudioDistanceV1` sums over its scales

    d = sum (A - B)² / sum A²  +  1/N sum |log(A + e) - log(B + e)|.

Its gradient with respect to the complex spectrogram Y of y (B = |Y|) follows directly from its terms,

    dd/dY = Y / B · ( 2 (B - A) / sum A²  +  sign(B - A) / (N (B + e)) ),

and is mapped to the samples by the adjoint of the transform: an inverse real FFT, the window, overlap-add, and folding of the
edges. So value and gradient are computed together, a few rows at a time while they are in the cache, and only the gradient is
kept. Automatic differentiation keeps every intermediate and differentiates through complex FFTs of twice the size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rave_dist.rave.imports import rave_module

Distance = Callable[[Tensor, Tensor], dict[str, Tensor]]
Pooled = Callable[[Tensor], Tensor]

_CACHE_VALUES = 2**18  # complex values of a spectrogram that are processed at once on a CPU
_SMALLEST = 1e-18  # least magnitude to divide by: squares of smaller ones underflow in single precision


def lean_distance(module: Any, pooled: Pooled = lambda energy: energy) -> Distance:
    """A distance module of RAVE as a function of target and output; differentiable in the output only.

    Args:
        module: if `is_lean`, it is replaced by this implementation, otherwise called directly.
        pooled: of the energy of these targets, the share in that of all targets by which the distance is normalised.
    """
    if not is_lean(module):
        return cast(Distance, module)
    stft = module.multiscale_stft

    def distance(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        windows = [part.window for part in stft.stfts]
        value: Tensor = _SpectralDistance.apply(y, x, windows, module.log_epsilon, pooled)  # type: ignore[no-untyped-call]
        return {"spectral_distance": value}

    return distance


def is_lean(module: Any) -> bool:
    """Whether a distance module is a ``core.AudioDistanceV1`` of plain magnitudes."""
    core = rave_module("core")
    if type(module) is not core.AudioDistanceV1 or type(module.multiscale_stft) is not core.MultiScaleSTFT:
        return False
    stft = module.multiscale_stft
    return bool(stft.magnitude and stft.num_mels is None and all(_is_plain(part) for part in stft.stfts))


def _is_plain(spectrogram: nn.Module) -> bool:
    part: Any = spectrogram
    return bool(
        part.power is None
        and not part.normalized
        and part.center
        and part.pad_mode == "reflect"
        and part.onesided
        and part.pad == 0
        and part.win_length == part.n_fft
        and part.hop_length * 4 == part.n_fft
    )


class _SpectralDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, windows: list[Tensor], epsilon: float, pooled: Pooled) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        rows_x, rows_y = x.detach().reshape(-1, x.shape[-1]), y.detach().reshape(-1, y.shape[-1])
        total = torch.zeros((), dtype=y.dtype, device=y.device)
        gradient = torch.zeros_like(rows_y) if wanted else None
        for window in windows:
            total = total + _scale(rows_x, rows_y, window, epsilon, pooled, gradient)
        ctx.save_for_backward(gradient.reshape(y.shape) if gradient is not None else None)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None, None, None


def _scale(x: Tensor, y: Tensor, window: Tensor, epsilon: float, pooled: Pooled, gradient: Tensor | None) -> Tensor:
    """The distance of rows ``[R, T]`` at one scale; its gradient with respect to ``y`` is added to ``gradient``."""
    length, n_fft = x.shape[-1], window.shape[0]
    frames = 1 + length // (n_fft // 4)
    count = x.shape[0] * frames * (n_fft // 2 + 1)
    rows = max(1, _CACHE_VALUES * x.shape[0] // count) if x.device.type == "cpu" else x.shape[0]
    targets = [_magnitude(_spectrum(part, window)) for part in torch.split(x, rows)]
    energy = pooled(sum((_dot(a, a) for a in targets), start=torch.zeros((), dtype=x.dtype, device=x.device)))

    squares, logs = torch.zeros_like(energy), torch.zeros_like(energy)
    for index, target in enumerate(targets):
        span = slice(index * rows, index * rows + len(target))
        spectrum = _spectrum(y[span], window)
        magnitude = _magnitude(spectrum)
        difference = magnitude - target
        squares = squares + _dot(difference, difference)
        shifted = magnitude + epsilon
        logs = logs + target.add_(epsilon).log_().sub_(shifted.log()).abs_().sum()
        if gradient is None:
            continue
        slope = difference.sign().div_(shifted).div_(count).addcmul_(difference, 2 / energy)
        slope.div_(magnitude.clamp_(min=_SMALLEST))
        gradient[span] += _adjoint(spectrum.mul_(slope), window, length)
    return squares / energy + logs / count


def _magnitude(spectrum: Tensor) -> Tensor:
    """Three times as fast as ``spectrum.abs()``, which guards against overflow."""
    real: Tensor = spectrum.real
    imaginary: Tensor = spectrum.imag
    return real.square().add_(imaginary.square()).sqrt_()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _spectrum(rows: Tensor, window: Tensor) -> Tensor:
    """``[R, T]`` to ``[R, frames, n / 2 + 1]``."""
    n_fft = window.shape[0]
    padded = torch.nn.functional.pad(rows.unsqueeze(1), (n_fft // 2, n_fft // 2), mode="reflect").squeeze(1)
    frames: Tensor = padded.unfold(-1, n_fft, n_fft // 4)
    spectrum: Tensor = torch.fft.rfft(frames * window)
    return spectrum


def _adjoint(spectrum: Tensor, window: Tensor, length: int) -> Tensor:
    """The transpose of `_spectrum` as a real linear map, ``[R, frames, n / 2 + 1]`` to ``[R, T]``; overwrites its argument."""
    n_fft = window.shape[0]
    half, hop = n_fft // 2, n_fft // 4
    rows, frames, _ = spectrum.shape
    # An inverse real FFT counts every bin twice, except the first and the last.
    spectrum[..., 0].mul_(2)
    spectrum[..., -1].mul_(2)
    pieces = torch.fft.irfft(spectrum, n=n_fft, norm="forward").mul_(window * 0.5).reshape(rows, frames, 4, hop)
    padded = torch.zeros(rows, length + n_fft, dtype=pieces.dtype, device=pieces.device)
    body = padded[:, : (frames + 3) * hop].unflatten(-1, (frames + 3, hop))  # type: ignore[no-untyped-call]
    for quarter in range(4):
        body[:, quarter : quarter + frames] += pieces[:, :, quarter]
    out = padded[:, half : half + length]
    out[:, 1 : half + 1] += padded[:, :half].flip(-1)
    out[:, length - 1 - half : length - 1] += padded[:, half + length :].flip(-1)
    return out
