"""Synthesised instruments and a bird call, for machines and tests without recordings.

All audio is mono float32, full scale 1, and depends only on the arguments and a seeded generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.signal
import scipy.special
from numpy.typing import NDArray

from rave_dist.audio.types import Audio

# Partials of a bell against its prime, with relative strengths: hum, prime, tierce, quint, nominal, deciem, ...
# (N. Fletcher, T. Rossing, The Physics of Musical Instruments, ch. 21).
_BELL_PARTIALS = ((0.5, 0.6), (1.0, 1.0), (1.2, 0.8), (1.5, 0.4), (2.0, 0.9), (2.5, 0.4), (2.67, 0.3), (3.0, 0.3), (4.0, 0.2))


@dataclass(frozen=True)
class Call:
    """A bird call in a recording: when it starts and how long it lasts, in seconds, and its peak (full scale 1)."""

    start: float
    seconds: float
    peak: float


def pink_noise(num_samples: int, rng: np.random.Generator) -> Audio:
    """Noise of equal power per octave above 20 Hz (at 44.1 kHz), scaled to an RMS of 1. Output: [num_samples]."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    bins = np.arange(len(spectrum)) / num_samples
    gain = 1 / np.sqrt(np.maximum(bins, 20 / 44100))  # power falls as 1/f, amplitude as its root
    gain[0] = 0
    noise = np.fft.irfft(spectrum * gain, num_samples)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), dtype=np.float32)


def plucked_string(frequency: float, seconds: float, *, sample_rate: int, rng: np.random.Generator) -> Audio:
    """A plucked string (K. Karplus, A. Strong, Computer Music Journal 7(2), 1983).

    ``y[n] = x[n] + g (y[n - N] + y[n - N - 1]) / 2`` with a noise burst of N samples as x. The loop delays by N + 1/2
    samples, so the pitch is ``sample_rate / (N + 1/2)``; N is chosen for the pitch nearest to ``frequency`` in Hz.
    """
    delay = max(2, round(sample_rate / frequency - 0.5))
    burst = np.zeros(round(seconds * sample_rate))
    noise = rng.uniform(-1, 1, delay)[: len(burst)]
    burst[: len(noise)] = noise - noise.mean()  # a DC offset would circulate and hardly decay
    feedback = np.zeros(delay + 2)
    feedback[0] = 1
    feedback[delay:] = -0.5 * 0.996
    return _finish(scipy.signal.lfilter([1.0], feedback, burst), sample_rate)


def membrane(frequency: float, seconds: float, *, sample_rate: int, rng: np.random.Generator) -> Audio:
    """A struck drum head: the modes of an ideal circular membrane, with the noise of the stick.

    The frequencies of the modes are proportional to the zeros of the Bessel functions J_m. Large displacements stretch the
    head, so that a stroke starts sharp. ``frequency`` in Hz is that of the lowest mode at rest.
    """
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    glide = time + 0.02 * (1 - np.exp(-time / 0.05))  # integral of 1 + 0.4 exp(-t / 50 ms): starts sharp
    lowest = scipy.special.jn_zeros(0, 1)[0]
    sound = np.zeros_like(time)
    for order in range(4):
        for zero in scipy.special.jn_zeros(order, 2):
            ratio = zero / lowest
            strength = rng.uniform(0.3, 1.0) / ratio
            sound += strength * np.exp(-time * 5 * ratio) * np.sin(2 * np.pi * frequency * ratio * glide)
    stick = rng.standard_normal(len(time)) * np.exp(-time / 0.006)
    return _finish(sound + 0.4 * stick, sample_rate)


def bell(frequency: float, seconds: float, *, sample_rate: int, rng: np.random.Generator) -> Audio:
    """A struck bell with its prime at ``frequency`` Hz: inharmonic partials; higher ones decay faster."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = np.zeros_like(time)
    for ratio, strength in _BELL_PARTIALS:
        phase = rng.uniform(0, 2 * np.pi)
        sound += strength * np.exp(-time * 0.9 * ratio) * np.sin(2 * np.pi * frequency * ratio * time + phase)
    return _finish(sound, sample_rate)


def blown_pipe(frequency: float, seconds: float, *, sample_rate: int, rng: np.random.Generator) -> Audio:
    """A flute-like tone at ``frequency`` Hz: odd and even harmonics with vibrato, breath noise around the pitch."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    vibrato = 0.006 * frequency * np.sin(2 * np.pi * 5.2 * time) * np.minimum(1, time / 0.4)
    phase = 2 * np.pi * np.cumsum(frequency + vibrato) / sample_rate
    harmonics = [h for h in range(1, 9) if h * frequency < 0.45 * sample_rate]
    sound = np.sum([np.sin(h * phase) / h**1.7 for h in harmonics], axis=0)
    band = [0.6 * frequency, min(4 * frequency, 0.45 * sample_rate)]
    breath = scipy.signal.sosfilt(
        scipy.signal.butter(2, band, "bandpass", fs=sample_rate, output="sos"), rng.standard_normal(len(time))
    )
    envelope = np.minimum(1, time / 0.08) * np.minimum(1, np.maximum(0, seconds - time) / 0.15)
    return _finish((sound + 0.25 * breath) * envelope, sample_rate)


def trill(
    *, sample_rate: int, notes: int = 14, notes_per_second: float = 7.0, from_hz: float = 4500.0, to_hz: float = 2800.0
) -> Audio:
    """A descending trill like a white-throated kingfisher's: short whistles at a constant rate, each lower than the last.

    Note k of K is centred at ``from_hz (to_hz / from_hz)^(k / (K - 1))`` Hz and falls by 6 % of it, with a Hann window of
    0.7 times the note period and a second harmonic at -20 dB if it is below half the sample rate. The peak is 1.
    Output: [K / notes_per_second seconds].
    """
    pace = 1 / notes_per_second
    call = np.zeros(round(notes * pace * sample_rate))
    length = round(0.7 * pace * sample_rate)
    window = np.hanning(length)
    for k in range(notes):
        middle = from_hz * (to_hz / from_hz) ** (k / max(1, notes - 1))
        phase = 2 * np.pi * np.cumsum(middle * np.linspace(1.03, 0.97, length)) / sample_rate
        note = np.sin(phase)
        if 2 * 1.03 * middle < sample_rate / 2:
            note = note + 0.1 * np.sin(2 * phase)
        start = round(k * pace * sample_rate)
        call[start : start + length] += window * note
    return np.asarray(call / np.abs(call).max(), dtype=np.float32)


def field_recording(seconds: float, *, sample_rate: int, seed: int) -> tuple[Audio, list[Call]]:
    """A field recording: pink noise and a kingfisher-like trill every few seconds.

    The noise varies slowly around -46 dBFS; the trills peak at -28 to -10 dBFS, with 6 to 9 notes per second.

    Output: [seconds · sample_rate] and the complete calls in it.
    """
    rng = np.random.default_rng(seed)
    num_samples = round(seconds * sample_rate)
    time = np.arange(num_samples) / sample_rate
    swell = 1 + 0.5 * np.sin(2 * np.pi * time / 17.0 + rng.uniform(0, 2 * np.pi))
    sound = pink_noise(num_samples, rng) * np.asarray(10 ** (-46 / 20) * swell, dtype=np.float32)
    calls: list[Call] = []
    start = rng.uniform(0.5, 1.5)
    while True:
        call = trill(sample_rate=sample_rate, notes=int(rng.integers(9, 17)), notes_per_second=rng.uniform(6, 9))
        first = round(start * sample_rate)
        if first + len(call) > num_samples:
            return sound, calls
        peak = float(10 ** (rng.uniform(-28, -10) / 20))
        sound[first : first + len(call)] += np.float32(peak) * call
        calls.append(Call(start=first / sample_rate, seconds=len(call) / sample_rate, peak=peak))
        start += len(call) / sample_rate + rng.uniform(1.0, 4.0)


def _finish(sound: NDArray[np.float64], sample_rate: int) -> Audio:
    """Normalises the peak to 1 (except silence) and fades the end out."""
    fade = min(len(sound), sample_rate // 100)
    sound = np.array(sound)
    sound[len(sound) - fade :] *= np.linspace(1, 0, fade)
    return np.asarray(sound / max(float(np.abs(sound).max(initial=0.0)), 1e-9), dtype=np.float32)
