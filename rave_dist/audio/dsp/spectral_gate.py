"""Stationary spectral gating: removes background noise between and around calls, and leaves the calls at their level.

With X the spectrum of a frame and m the noise floor of the recording (`rave_dist.audio.dsp.noise_profile`), a bin is active
where |X|² is 9 dB above m, which 1 in 3,000 bins of noise is. A call is active in many neighbouring bins, noise in single
ones. So the gain of a bin follows from the share of active bins around it, in an area of 9 bins and 9 frames (0.4 kHz and
48 ms at 48 kHz): 0 up to a tenth, 1 from three tenths, smoothed over 5 bins and frames. Gating by the mean of the mask itself,
as in noisereduce (T. Sainburg), takes several dB off narrow calls.

Analysis and synthesis use the same Hann window at a quarter of its length, so that gains of 1 give the samples back. All
samples that an output depends on are within 12 hops, so the recording is computed in chunks of fixed positions, as `cut`
describes: the result does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.ndimage import uniform_filter

from rave_dist.audio.dsp.chunks import cut
from rave_dist.audio.dsp.noise_profile import window_for
from rave_dist.audio.types import Audio

HOPS_PER_WINDOW = 4
EDGE_FRAMES = 2  # frames before the first and after the last hop that reach into the sound

_HOPS_AT_ONCE = 256
_CONTEXT_HOPS = 12
_ACTIVE_DB = 9.0
_AREA, _SMOOTHING = 9, 5
_EDGES = ("nearest", "constant")  # bins below 0 Hz and above half the sample rate are not active
_SHARES = (0.1, 0.3)
_OVERLAP = 1.5  # sum of the squared window over all frames at a sample


def spectra(sound: Audio, window: Audio) -> NDArray[np.complex64]:
    """The spectra of frames centred on the hops of a sound, and of two more frames at either end; zeros around the sound.

    Input: [samples], a multiple of the hop. Output: [hops + 4, bins].
    """
    hop = len(window) // HOPS_PER_WINDOW
    edge = EDGE_FRAMES * hop + (len(window) - hop) // 2
    padded = np.pad(sound, edge)
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop]
    return np.asarray(rfft(frames * window, axis=-1), dtype=np.complex64)


def denoise(blocks: Iterable[Audio], *, floor: Audio, sample_rate: int, amount: float = 1.0) -> Iterator[Audio]:
    """Removes the noise from a stream, in constant memory and at the same length.

    Args:
        blocks: consecutive blocks, float32 [channels, n].
        floor: the noise floor, [channels, bins].
        sample_rate: in Hz.
        amount: by how much: 1 removes the noise, 0 nothing; the gain of noise is 1 - amount.
    """
    window = window_for(sample_rate)
    hop = len(window) // HOPS_PER_WINDOW
    active = floor * np.float32(10 ** (_ACTIVE_DB / 10))
    for chunk in cut(blocks, hop=hop, core=_HOPS_AT_ONCE * hop, context=(_CONTEXT_HOPS * hop, _CONTEXT_HOPS * hop)):
        yield np.stack([_gated(c, a, window, amount)[chunk.core] for c, a in zip(chunk.samples, active, strict=True)])


def _gated(sound: Audio, active: Audio, window: Audio, amount: float) -> Audio:
    spectrum = spectra(sound, window)
    above = (np.square(np.abs(spectrum)) > active).astype(np.float32)
    share = uniform_filter(above, _AREA, mode=_EDGES)
    gain = np.clip((share - _SHARES[0]) / (_SHARES[1] - _SHARES[0]), 0, 1).astype(np.float32)
    gain = uniform_filter(gain, _SMOOTHING, mode=_EDGES)
    spectrum *= 1 - np.float32(amount) * (1 - gain)
    return _joined(np.asarray(irfft(spectrum, axis=-1), dtype=np.float32) * window, len(sound))


def _joined(frames: Audio, length: int) -> Audio:
    """The sum of overlapping frames, without the edges that `spectra` adds."""
    num_frames, size = frames.shape
    hop = size // HOPS_PER_WINDOW
    total = np.zeros((num_frames + HOPS_PER_WINDOW - 1, hop), np.float32)
    for quarter in range(HOPS_PER_WINDOW):
        total[quarter : quarter + num_frames] += frames[:, quarter * hop : (quarter + 1) * hop]
    edge = EDGE_FRAMES * hop + (size - hop) // 2
    return np.asarray(total.reshape(-1)[edge : edge + length] / np.float32(_OVERLAP), dtype=np.float32)
