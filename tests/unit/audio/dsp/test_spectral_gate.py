"""Spectral gating: noise falls, calls stay, nothing moves; and neither blocks nor chunks can be seen in the result."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.fft import irfft, rfft
from scipy.ndimage import uniform_filter

from rave_dist.audio.dsp.noise_profile import NoiseProfile, window_for
from rave_dist.audio.dsp.spectral_gate import denoise
from tests.unit.audio.dsp.scenes import RATE, calls, level, noise, split


def floor(sound: np.ndarray, rate: int = RATE) -> np.ndarray:
    profile = NoiseProfile(sample_rate=rate, channels=len(sound))
    profile.add(sound)
    return profile.floor


def denoised(sound: np.ndarray, *, rate: int = RATE, block: int = 1 << 30, amount: float = 1.0) -> np.ndarray:
    blocks = split(sound, min(block, sound.shape[1]))
    return np.concatenate(list(denoise(blocks, floor=floor(sound, rate), sample_rate=rate, amount=amount)), axis=1)


@pytest.mark.parametrize("kind", ["pink", "white", "hum"])
@pytest.mark.parametrize(("snr", "correlation"), [(20, 0.999), (10, 0.998), (0, 0.98)])
def test_noise_falls_and_calls_stay(kind: str, snr: int, correlation: float) -> None:
    """Measured on the same scenes, noisereduce 3.0.3 (stationary) takes 30 dB off the noise, and 4 to 7 dB off the calls."""
    clean, during = calls()
    background = noise(kind, 10 ** ((level(clean[during]) - snr) / 20), len(clean))
    result = denoised((clean + background)[None])[0]
    assert level(result[~during]) < level(background[~during]) - 40
    gain = np.vdot(result[during], clean[during]) / np.vdot(clean[during], clean[during])
    assert abs(20 * np.log10(gain)) < 0.5
    assert np.corrcoef(result[during], clean[during])[0, 1] > correlation


@pytest.mark.parametrize("rate", [8000, 44100, 192_000])
def test_a_tone_keeps_its_level_at_any_rate(rate: int) -> None:
    time = np.arange(4 * rate) / rate
    tone = np.where((time > 1) & (time < 2), 0.1 * np.sin(2 * np.pi * 1000 * time), 0)
    result = denoised((tone + noise("white", 0.001, len(time), rate=rate))[None], rate=rate)[0]
    inside, outside = (time > 1.1) & (time < 1.9), (time < 0.8) | (time > 2.2)
    assert level(result[inside]) == pytest.approx(level(tone[inside]), abs=0.1)
    assert level(result[outside]) < -100


def test_the_amount_is_the_share_that_is_removed() -> None:
    background = noise("white", 0.01, 4 * RATE)[None]
    for amount in (0.5, 0.9):
        result = denoised(background, amount=amount)
        assert level(result) - level(background) == pytest.approx(20 * np.log10(1 - amount), abs=0.3)
    np.testing.assert_allclose(denoised(background, amount=0.0), background, atol=1e-7)


def test_silence_stays_silence_and_what_is_clean_stays_as_it_is() -> None:
    assert not denoised(np.zeros((2, 30_000), np.float32)).any()
    clean, during = calls(4.0)
    result = denoised(clean[None])[0]
    assert level((result - clean)[during]) < level(clean[during]) - 40


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 5000, 256 * 256, 2 * 256 * 256 + 17])
def test_length_is_kept(samples: int) -> None:
    assert denoised(noise("white", 0.1, samples)[None]).shape == (1, samples)


def test_blocks_change_no_bit() -> None:
    sound = np.stack([calls(3.0)[0], calls(3.0)[0] / 2]) + noise("pink", 0.01, 3 * RATE)
    expected = denoised(sound)
    for block in (1, 17, 4096):
        np.testing.assert_array_equal(denoised(sound, block=block), expected)


def test_chunks_join_into_the_result_on_the_whole() -> None:
    """The same method without chunks: one transform of the whole recording."""
    clean, _ = calls()
    sound = clean + noise("pink", 0.01, len(clean))
    window = window_for(RATE)
    hop = len(window) // 4
    padded = np.pad(sound, 4 * len(window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[hop // 2 :: hop].astype(np.float64)
    spectrum = rfft(frames * window)
    share = uniform_filter((np.abs(spectrum) ** 2 > floor(sound[None])[0] * 10**0.9).astype(float), 9, mode="constant")
    spectrum *= uniform_filter(np.clip((share - 0.1) / 0.2, 0, 1), 5, mode="constant")
    whole = np.zeros(len(padded))
    for number, frame in enumerate(irfft(spectrum) * window):
        whole[hop // 2 + number * hop :][: len(window)] += frame / 1.5
    whole = whole[4 * len(window) :][: len(sound)]
    assert np.abs(denoised(sound[None])[0] - whole)[5000:-5000].max() < 1e-5


def test_memory_does_not_grow_with_the_length() -> None:
    block = noise("white", 0.01, RATE)[None]
    at = floor(np.tile(block, 4))

    def ten_minutes() -> Iterator[np.ndarray]:
        for _ in range(600):
            yield block.copy()

    tracemalloc.start()
    length = sum(part.shape[1] for part in denoise(ten_minutes(), floor=at, sample_rate=RATE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == 600 * RATE
    assert peak < 16 << 20
