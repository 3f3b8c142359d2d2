r"""Random augmentations of training windows, by batch: pitch, mute, compression, gain, polarity.

RAVE has three of these for small data sets (``rave/transforms.py``, ``--augment``) and a fourth for pitch. They are
implemented as intended there:

- gain: between -6 and +3 dB, limited so that the peak stays within full scale. RAVE computes the gain but returns its input.
- compression: levels at -40 dB are raised to at most -20 dB; the curve is piecewise linear in decibels and keeps -80 dB and
full scale. RAVE calls a function that torchaudio removed. It drew -60 to 0 dB, which also expands and in the extreme removes
all dynamics, and its level detector had an attack of 0.1 s, so that transients passed. Here the level is the peak of 64
samples with a look-ahead of 64 samples, and a release of 0.1 s.
- mute: the window is silent except for dequantisation noise, which RAVE mutes too. One window of a batch is never muted,
because the distances divide by the batch's energy.
- pitch and speed together: a ratio of 3/4 to 4/3, uniform in pitch. RAVE uses 0.7 to 1.3 of a window's length, slower ones
only as far as they fit its chunk.
- polarity: inverts the sign, which is inaudible but changes the waveform that a network sees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from rave_dist.options import Augmentation

ORDER: tuple[Augmentation, ...] = ("mangle", "pitch", "mute", "compress", "gain", "polarity")
"""Order in which the random numbers of a batch are drawn, RAVE's own augmentation first; those of extensions follow by name."""

_GAIN_DECIBELS = (-6.0, 3.0)
_THRESHOLD, _HIGHEST_LIFT, _RELEASE_SECONDS, _BLOCK = -40.0, 20.0, 0.1, 64
_LOWEST_RATIO, _LARGEST_TERM = Fraction(3, 4), 16
_ZERO_CROSSINGS, _ROLL_OFF = 12, 0.95


@dataclass(frozen=True)
class Draw:
    """Rows of a batch for one augmentation (int64, ``[R]``), and a random number in [0, 1) for each (float64, ``[R]``)."""

    rows: Tensor
    values: Tensor

    def of_rows(self, rows: Sequence[int]) -> Draw:
        """The draw for some rows of the batch, which become rows 0, 1, 2 and so on."""
        number = {row: index for index, row in enumerate(rows)}
        kept = [index for index, row in enumerate(self.rows.tolist()) if row in number]
        new = torch.tensor([number[row] for row in self.rows[kept].tolist()], dtype=self.rows.dtype)
        return Draw(new, self.values[kept])


def draw(probabilities: Mapping[str, float], batch: int, generator: torch.Generator) -> dict[str, Draw]:
    """Draws the augmentations of a batch.

    Args:
        probabilities: of the augmentations of `ORDER`.
        batch: number of windows.
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
    """Rows ``[R, C, T]`` with a gain from ``value`` ``[R]`` in [0, 1), uniform in decibels, and no peak above full scale."""
    low, high = _GAIN_DECIBELS
    louder = x * 10 ** ((low + (high - low) * value.to(x.dtype)) / 20)[:, None, None]
    return louder / louder.abs().amax((1, 2), keepdim=True).clamp_(min=1)


def compress(x: Tensor, value: Tensor, *, sample_rate: int) -> Tensor:
    """Rows ``[R, C, T]`` with soft parts raised, by ``value`` ``[R]`` times 20 dB at -40 dB; channels are linked.

    With L the detected level in dB, the gain is ``value · 20 · max(0, 1 - |L + 40| / 40)`` dB: the output level increases
    with L and never exceeds full scale.
    """
    length = x.shape[-1]
    peaks = torch.nn.functional.pad(x.abs().amax(1), (0, -length % _BLOCK)).unflatten(-1, (-1, _BLOCK)).amax(-1)  # type: ignore[no-untyped-call]
    level = 20 * torch.log10(peaks.clamp_(min=1e-6))
    fall = 20 * math.log10(math.e) * _BLOCK / (_RELEASE_SECONDS * sample_rate)  # dB per block
    ramp = fall * torch.arange(level.shape[-1], device=x.device, dtype=x.dtype)
    followed = torch.cummax(level + ramp, -1).values - ramp  # the maximum of past levels, each reduced by its age
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
    """The ratio of pitch (and speed) for a random number in [0, 1): uniform in pitch, with small terms."""
    wanted = (1 - 2 * value) * math.log(_LOWEST_RATIO)
    return min(_ratios(), key=lambda ratio: abs(math.log(ratio) - wanted))


def source_samples(size: int, ratio: Fraction) -> int:
    """The number of input samples that `resample` needs for ``size``."""
    up, down = ratio.denominator, ratio.numerator
    return (-(-size // up) - 1) * down + int(_kernel(up, down).shape[-1])


def resample(x: Tensor, ratio: Fraction, size: int) -> Tensor:
    """Plays ``x`` faster by ``ratio``: every frequency times ``ratio``.

    Band-limited interpolation with a windowed sinc (J. O. Smith, "Digital Audio Resampling"), one filter per fractional
    position, as one strided convolution.

    Args:
        x: ``[C, source_samples(size, ratio)]``.
        ratio: a fraction with small terms.
        size: number of output samples.

    Returns:
        ``[C, size]``.
    """
    up, down = ratio.denominator, ratio.numerator
    phases = torch.nn.functional.conv1d(x[:, None], _kernel(up, down).to(x), stride=down)
    return phases.transpose(1, 2).reshape(x.shape[0], -1)[:, :size]


@functools.cache
def _kernel(up: int, down: int) -> Tensor:
    """``[up, 1, K]``: the filters of the positions n · down / up, n < up."""
    cutoff = _ROLL_OFF * min(1.0, up / down)
    width = _ZERO_CROSSINGS / cutoff
    half = math.ceil(width)
    place = torch.arange(up, dtype=torch.float64)[:, None] * down / up
    lag = torch.arange(2 * half + down, dtype=torch.float64) - half - place
    taper = torch.cos(math.pi / 2 * (lag / width).clamp(-1, 1)).square()
    kernel = cutoff * torch.sinc(cutoff * lag) * taper
    return (kernel / kernel.sum(-1, keepdim=True)).float()[:, None]
