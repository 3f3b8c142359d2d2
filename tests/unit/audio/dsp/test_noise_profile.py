"""The noise floor of a recording: that of its noise, whatever calls over it."""

import tracemalloc

import numpy as np
import pytest

from rave_dist.audio.dsp.noise_profile import NoiseProfile, window_for
from tests.unit.audio.dsp.scenes import RATE, calls, noise, split


def floor(sound: np.ndarray, *, rate: int = RATE, block: int = 10_000) -> np.ndarray:
    profile = NoiseProfile(sample_rate=rate, channels=len(sound))
    for part in split(sound, block):
        profile.add(part)
    return profile.floor


@pytest.mark.parametrize("rate", [8000, 44100, 192_000])
def test_white_noise_has_its_power_in_every_bin(rate: int) -> None:
    """The expected power of a bin is that of the noise times the energy of the window."""
    window = window_for(rate)
    expected = 0.01**2 * float(np.vdot(window, window))
    found = floor(noise("white", 0.01, 20 * rate, rate=rate)[None], rate=rate)[0]
    assert found.shape == (len(window) // 2 + 1,)
    assert 10 * np.log10(found[1:-1].mean() / expected) == pytest.approx(0, abs=0.3)
    assert np.abs(10 * np.log10(found[1:-1] / expected)).max() < 4


def test_calls_raise_it_by_little() -> None:
    sound, _ = calls(12.0)
    background = noise("pink", 0.01, len(sound))
    with_calls, without = floor((sound + background)[None]), floor(background[None])
    assert np.abs(10 * np.log10(with_calls / without)).max() < 3


def test_digital_silence_is_not_counted() -> None:
    background = noise("white", 0.01, 4 * RATE)[None]
    gaps = np.concatenate([background[:, : 2 * RATE], np.zeros((1, 20 * RATE), np.float32), background[:, 2 * RATE :]], axis=1)
    assert 10 * np.log10(floor(gaps).mean() / floor(background).mean()) == pytest.approx(0, abs=0.3)


def test_each_channel_has_its_own() -> None:
    left, right = noise("white", 0.01, 4 * RATE), noise("pink", 0.1, 4 * RATE, seed=2)
    both = floor(np.stack([left, right]))
    np.testing.assert_array_equal(both[0], floor(left[None])[0])
    np.testing.assert_array_equal(both[1], floor(right[None])[0])


@pytest.mark.parametrize("samples", [0, 1, 5000, RATE // 2])
def test_too_short_to_measure_is_the_rounding_of_16_bits(samples: int) -> None:
    window = window_for(RATE)
    rounding = 2.0**-30 / 12 * float(np.vdot(window, window))
    np.testing.assert_allclose(floor(noise("white", 0.1, 50_000)[None, :samples]), rounding, rtol=1e-6)
    np.testing.assert_allclose(floor(np.zeros((1, 5 * RATE), np.float32)), rounding, rtol=1e-6)


def test_blocks_change_no_bit() -> None:
    sound = (calls(3.0)[0] + noise("pink", 0.01, 3 * RATE))[None]
    expected = floor(sound, block=sound.shape[1])
    for block in (1, 17, 4096):
        np.testing.assert_array_equal(floor(sound, block=block), expected)


def test_it_can_be_read_on_the_way() -> None:
    sound = noise("white", 0.01, 3 * RATE)[None]
    profile = NoiseProfile(sample_rate=RATE, channels=1)
    for part in split(sound, 10_000):
        profile.add(part)
        _ = profile.floor
    np.testing.assert_array_equal(profile.floor, floor(sound))


def test_memory_does_not_grow_with_the_length() -> None:
    block = noise("white", 0.01, RATE)[None]

    def peak(seconds: int) -> int:
        tracemalloc.start()
        profile = NoiseProfile(sample_rate=RATE, channels=1)
        for _ in range(seconds):
            profile.add(block)
        _ = profile.floor
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(600) < peak(20) + (1 << 20)
