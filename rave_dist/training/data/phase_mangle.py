r"""RAVE's random phase mangle: an all-pass filter, computed for a whole batch.

The filter of one window, with a pole pair at radius r and angle w,

    H(z) = (r² - 2 r cos w z⁻¹ + z⁻²) / (1 - 2 r cos w z⁻¹ + r² z⁻²),

keeps all levels and shifts the phases around w. Sample by sample it is a recursion, which is slow in Python and on a GPU. In
blocks of L samples it is a matrix product: with h the impulse response,

    y[k L + j] = sum_{i ≤ j} h[j - i] x[k L + i]  +  r^j (cos(j w) a_k + sin(j w) / sin w · b_k).

The second term is the ringing of the past: for n > 2, h satisfies the homogeneous recursion, which has these two solutions.
Each block adds to its state (a, b) = (z₀, z₁ / r - cos w z₀), with z the ringing,

    a += sum_i h[L - i] x[i],    b += sum_i (h[L + 1 - i] / r - cos w h[L - i]) x[i]

and from block to block it is multiplied by P = r^L [[cos L w, sin L w / sin w], [-sin w sin L w, cos L w]]. The sum over all
earlier blocks is again such a recursion and is computed in the same way, in groups, by products. All coefficients are computed
in double precision, so single precision suffices for the signal: the result is within 1e-6 of `scipy.signal.lfilter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 32
_GROUP = 16


def all_pass_(rows: Sequence[Tensor], angle: Tensor, radius: float) -> None:
    """Filters each row in place with its own all-pass filter, from a state of rest.

    Each is ``scipy.signal.lfilter([r², -2 r cos w, 1], [1, -2 r cos w, r²], row)`` afterwards.

    Args:
        rows: contiguous, ``[C, T]`` each; or one tensor ``[B, C, T]``.
        angle: of the poles, ``[B]``, in radians, strictly between 0 and pi.
        radius: of the poles, between 0 and 1.
    """
    channels, length = rows[0].shape
    dtype, num_blocks = rows[0].dtype, -(-length // _BLOCK)
    padding = num_blocks * _BLOCK - length

    w = angle.double()
    h = _impulse_response(w, radius, _BLOCK + 2)
    steps = torch.arange(_BLOCK, device=angle.device)
    lag = steps[None, :] - steps[:, None]
    within = torch.where(lag >= 0, h[:, lag.clamp(min=0)], 0.0).to(dtype)
    h0, h1 = h[:, _BLOCK - steps], h[:, _BLOCK + 1 - steps]
    into_state = torch.stack([h0, h1 / radius - w.cos()[:, None] * h0], 1).to(dtype)
    decay = radius ** steps.double()
    ringing = torch.stack([decay * (w[:, None] * steps).cos(), decay * _sine_ratio(w, steps)], 1).to(dtype)

    # Large products are computed row by row while a row is in the cache; a result of two rows is twice as fast as two columns.
    padded = [torch.nn.functional.pad(row, (0, padding)) for row in rows] if padding else rows
    blocks = [row.view(-1, _BLOCK) for row in padded]
    state = torch.stack([columns @ block.T for columns, block in zip(into_state, blocks, strict=True)]).transpose(1, 2)
    state = state.reshape(len(rows), channels, num_blocks, 2).double()
    state = _sum_of_past(state, w, radius, _BLOCK).flatten(1, 2).to(dtype)
    for row, block, matrix, past, ring in zip(rows, blocks, within, state, ringing, strict=True):
        row.copy_((block @ matrix).addmm_(past, ring).view(channels, -1)[:, :length])


def _impulse_response(w: Tensor, radius: float, length: int) -> Tensor:
    """``[B, length]``: with g the response of the poles alone, g[n] = r^n sin((n + 1) w) / sin w."""
    n = torch.arange(length, device=w.device)
    g = radius ** n.double() * _sine_ratio(w, n + 1)
    g1, g2 = (torch.nn.functional.pad(g, (k, 0))[:, :length] for k in (1, 2))
    return radius**2 * g - 2 * radius * w.cos()[:, None] * g1 + g2


def _sine_ratio(w: Tensor, n: Tensor) -> Tensor:
    """sin(n w) / sin w, ``[B, len(n)]``."""
    return (w[:, None] * n).sin() / w.sin()[:, None]


def _transition(w: Tensor, radius: float, n: Tensor) -> Tensor:
    """The transition matrices over ``n`` samples, ``[B, len(n), 2, 2]``, for row vectors (multiplied from the right)."""
    decay = radius ** n.double()
    cos, sin = decay * (w[:, None] * n).cos(), decay * (w[:, None] * n).sin()
    ratio = sin / w.sin()[:, None]
    return torch.stack([torch.stack([cos, -w.sin()[:, None] * sin], -1), torch.stack([ratio, cos], -1)], -2)


def _sum_of_past(v: Tensor, w: Tensor, radius: float, stride: int) -> Tensor:
    """The sum over earlier elements, s[k] = sum_{m < k} v[m] P^(k - 1 - m), with P the transition over ``stride`` samples.

    Args:
        v: ``[B, C, K, 2]``.
        w: ``[B]``.
        radius: of the poles.
        stride: samples from one element to the next.
    """
    rows, channels, count, _ = v.shape
    if count <= _GROUP:
        return _within_group(v.reshape(rows, channels, count * 2), w, radius, stride, count).reshape(v.shape)
    num_groups = -(-count // _GROUP)
    padded = torch.nn.functional.pad(v, (0, 0, 0, num_groups * _GROUP - count))
    groups = padded.reshape(rows, channels * num_groups, _GROUP * 2)
    inner = _within_group(groups, w, radius, stride, _GROUP).reshape(rows, channels * num_groups, _GROUP, 2)

    steps = torch.arange(_GROUP, device=v.device)
    to_end = _transition(w, radius, (_GROUP - 1 - steps) * stride).to(v.dtype).reshape(rows, _GROUP * 2, 2)
    total = torch.bmm(groups, to_end).reshape(rows, channels, num_groups, 2)
    before = _sum_of_past(total, w, radius, stride * _GROUP).reshape(rows, channels * num_groups, 2)
    from_start = _transition(w, radius, steps * stride).to(v.dtype).permute(0, 2, 1, 3).reshape(rows, 2, _GROUP * 2)
    outer = torch.bmm(before, from_start).reshape(rows, channels * num_groups, _GROUP, 2)
    return (inner + outer).reshape(rows, channels, num_groups * _GROUP, 2)[:, :, :count]


def _within_group(v: Tensor, w: Tensor, radius: float, stride: int, count: int) -> Tensor:
    """`_sum_of_past` of short sequences ``[B, N, count · 2]`` by one block-triangular matrix."""
    steps = torch.arange(count, device=v.device)
    lag = steps[None, :] - steps[:, None] - 1
    powers = _transition(w, radius, steps * stride)
    matrix = torch.where((lag >= 0)[..., None, None], powers[:, lag.clamp(min=0)], 0.0)
    return torch.bmm(v, matrix.permute(0, 1, 3, 2, 4).reshape(v.shape[0], count * 2, count * 2).to(v.dtype))


def random_angles(uniform: Tensor, *, sample_rate: int, lowest: float = 20.0, highest: float = 2000.0) -> Tensor:
    """Pole angles of frequencies that are uniform in pitch.

    Args:
        uniform: random numbers in [0, 1).
        sample_rate: in Hz.
        lowest: in Hz.
        highest: in Hz, RAVE's own value; limited by the sample rate.
    """
    highest = min(highest, 0.49 * sample_rate)
    low, high = math.log(lowest), math.log(highest)
    return torch.exp(uniform * (high - low) + low) * (2 * math.pi / sample_rate)
