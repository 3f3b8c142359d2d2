r"""What may be done to a training window, and by chance: pitch, mute, compression, gain, polarity; all rows of a batch at once.

RAVE has three of these for little data (``rave/transforms.py``, as ``--augment``) and a fourth for pitch. Each is here what
RAVE's means to be:

- gain: a level between -6 and +3 dB, brought back to full scale where it would leave it. RAVE computes it and then returns
  its input.
- compression: sounds at -40 dB are raised to somewhere up to -20 dB, in between as a straight line in decibels from -80 dB
  (kept) to full scale (kept). RAVE's calls a function that torchaudio removed; it drew -60 to 0 dB, which also expands and at
  its end leaves no dynamics at all, and followed the level with 0.1 s of attack, so that every stroke passed it. Here the
  level is the peak of 64 samples, known 64 samples ahead, and falls with 0.1 s.
- mute: the window is silence but for the dequantisation noise, which RAVE's silences too; and never all windows of a batch,
  as the distances divide by the batch's energy.
- pitch and speed together: three quarters to four thirds, evenly in pitch. RAVE's takes 0.7 to 1.3 of a window's length,
  of which only what fits its chunk can be slower.
- polarity: inverts the sign, which is inaudible but changes the waveform that a network sees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from rave_dist.options import Augmentation

ORDER: tuple[Augmentation, ...] = ("mangle", "pitch", "mute", "compress", "gain", "polarity")
"""In which the chances of a batch are drawn; RAVE's own first. Those of extensions follow by name."""

_GAIN_DECIBELS = (-6.0, 3.0)
_THRESHOLD, _HIGHEST_LIFT, _RELEASE_SECONDS, _BLOCK = -40.0, 20.0, 0.1, 64
_LOWEST_RATIO, _LARGEST_TERM = Fraction(3, 4), 16
_ZERO_CROSSINGS, _ROLL_OFF = 12, 0.95


@dataclass(frozen=True)
class Draw:
    """Which rows of a batch one effect is for (int64, ``[R]``) and a random number in [0, 1) for each (float64, ``[R]``)."""

    rows: Tensor
    values: Tensor


def draw(probabilities: Mapping[str, float], batch: int, generator: torch.Generator) -> dict[str, Draw]:
    """Draws what happens to the windows of a batch.

    Args:
        probabilities: of each effect of `ORDER` that may happen.
        batch: windows.
        generator: on the CPU.
    """
    draws: dict[str, Draw] = {}
    for name in (*(name for name in ORDER if name in probabilities), *of_extensions(probabilities)):
        chosen = torch.rand(batch, generator=generator) < probabilities[name]
        values = torch.rand(batch, generator=generator, dtype=torch.float64)
        rows = chosen.nonzero().flatten()
        if name == "mute" and len(rows) == batch:
            rows = rows[1:]
        draws[name] = Draw(rows, values[rows])
    return draws


def of_extensions(names: Iterable[str]) -> list[str]:
    """Those of the names that extensions register, in the order in which they are drawn and applied."""
    return sorted(set(names) - set(ORDER))


def gain(x: Tensor, value: Tensor) -> Tensor:
    """Rows ``[R, C, T]`` at levels by ``value`` ``[R]`` in [0, 1), evenly in decibels; no peak above full scale."""
    low, high = _GAIN_DECIBELS
    louder = x * 10 ** ((low + (high - low) * value.to(x.dtype)) / 20)[:, None, None]
    return louder / louder.abs().amax((1, 2), keepdim=True).clamp_(min=1)


def compress(x: Tensor, value: Tensor, *, sample_rate: int) -> Tensor:
    """Rows ``[R, C, T]`` with their soft parts raised, by ``value`` ``[R]`` times 20 dB at -40 dB; channels stay together.

    With L the followed level in dB, the lift is ``value · 20 · max(0, 1 - |L + 40| / 40)``: output level rises with L
    throughout and never passes full scale.
    """
    length = x.shape[-1]
    peaks = torch.nn.functional.pad(x.abs().amax(1), (0, -length % _BLOCK)).unflatten(-1, (-1, _BLOCK)).amax(-1)  # type: ignore[no-untyped-call]
    level = 20 * torch.log10(peaks.clamp_(min=1e-6))
    fall = 20 * math.log10(math.e) * _BLOCK / (_RELEASE_SECONDS * sample_rate)  # dB per block
    ramp = fall * torch.arange(level.shape[-1], device=x.device, dtype=x.dtype)
    followed = torch.cummax(level + ramp, -1).values - ramp  # the loudest of the past, each fallen by its age
    followed = torch.maximum(followed, torch.cat([followed[:, 1:], followed[:, -1:]], -1))
    share = (1 - (followed - _THRESHOLD).abs() / -_THRESHOLD).clamp_(min=0)
    factor = 10 ** (share * (value.to(x.dtype)[:, None] * _HIGHEST_LIFT / 20))
    return x * torch.nn.functional.interpolate(factor[:, None], scale_factor=_BLOCK, mode="linear")[..., :length]


@functools.cache
def _ratios() -> tuple[Fraction, ...]:
    terms = range(1, _LARGEST_TERM + 1)
    low, high = _LOWEST_RATIO, 1 / _LOWEST_RATIO
    return tuple(sorted({Fraction(p, q) for p in terms for q in terms if p != q and low <= Fraction(p, q) <= high}))


def pitch_ratio(value: float) -> Fraction:
    """By how much the pitch (and speed) of a window changes, for a random number in [0, 1): evenly in pitch, in small terms."""
    wanted = (1 - 2 * value) * math.log(_LOWEST_RATIO)
    return min(_ratios(), key=lambda ratio: abs(math.log(ratio) - wanted))


def source_samples(size: int, ratio: Fraction) -> int:
    """How many samples `resample` needs for ``size``."""
    up, down = ratio.denominator, ratio.numerator
    return (-(-size // up) - 1) * down + int(_kernel(up, down).shape[-1])


def resample(x: Tensor, ratio: Fraction, size: int) -> Tensor:
    """Plays ``x`` faster by ``ratio``: every frequency times ``ratio``.

    Band-limited interpolation by a windowed sinc (J. O. Smith, "Digital Audio Resampling"), one filter for each of the places
    between two samples that occur, as one strided convolution.

    Args:
        x: ``[C, source_samples(size, ratio)]``.
        ratio: in small terms.
        size: samples wanted.

    Returns:
        ``[C, size]``.
    """
    up, down = ratio.denominator, ratio.numerator
    phases = torch.nn.functional.conv1d(x[:, None], _kernel(up, down).to(x), stride=down)
    return phases.transpose(1, 2).reshape(x.shape[0], -1)[:, :size]


@functools.cache
def _kernel(up: int, down: int) -> Tensor:
    """``[up, 1, K]``: the filter for each place n · down / up, n < up."""
    cutoff = _ROLL_OFF * min(1.0, up / down)
    width = _ZERO_CROSSINGS / cutoff
    half = math.ceil(width)
    place = torch.arange(up, dtype=torch.float64)[:, None] * down / up
    lag = torch.arange(2 * half + down, dtype=torch.float64) - half - place
    taper = torch.cos(math.pi / 2 * (lag / width).clamp(-1, 1)).square()
    kernel = cutoff * torch.sinc(cutoff * lag) * taper
    return (kernel / kernel.sum(-1, keepdim=True)).float()[:, None]
