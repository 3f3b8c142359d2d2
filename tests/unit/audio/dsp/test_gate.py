"""The gate: open where the recording calls, closed elsewhere, at the right sample of another sample rate."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from rave_dist.audio.dsp.gate import Gate, hop_of, sounding
from rave_dist.audio.dsp.noise_profile import NoiseProfile
from tests.unit.audio.dsp.scenes import RATE, calls, level, noise, split


def gains(
    sound: np.ndarray,
    *,
    above_db: float | None = None,
    peak: float = 0.0,
    rate: int = RATE,
    new_rate: int = RATE,
    block: int = 1 << 30,
    read: int = 10_000,
) -> np.ndarray:
    floor = None
    if above_db is not None:
        profile = NoiseProfile(sample_rate=rate, channels=len(sound))
        profile.add(sound)
        floor = profile.floor
    blocks = split(sound, min(block, sound.shape[1]))
    gate = Gate(
        sounding(blocks, sample_rate=rate, floor=floor, above_db=above_db or 0, peak=peak), rate=rate, new_rate=new_rate
    )
    length = sound.shape[1] * new_rate // rate
    return np.concatenate([gate.read(min(read, length - start)) for start in range(0, length, read)])


@pytest.mark.parametrize("kind", ["pink", "white", "hum"])
@pytest.mark.parametrize("snr", [20, 10])
def test_it_opens_for_calls_and_not_for_noise(kind: str, snr: int) -> None:
    clean, during = calls()
    background = noise(kind, 10 ** ((level(clean[during]) - snr) / 20), len(clean))
    gain = gains((clean + background)[None], above_db=12)
    assert gain[np.abs(clean) > 0.02].min() == 1
    near = np.convolve(during, np.ones(RATE // 2), "same") > 0.5
    assert not gain[~near].any()
    assert set(np.unique(gain[gain > 0]) <= 1) == {True}


def test_noise_alone_never_opens_it_for_more_than_moments() -> None:
    assert gains(noise("pink", 0.1, 60 * RATE)[None], above_db=10).mean() < 0.02
    assert not gains(noise("pink", 0.1, 60 * RATE)[None], above_db=15).any()


def test_any_channel_opens_it_for_all() -> None:
    clean, _ = calls()
    stereo = np.stack([noise("pink", 0.003, len(clean)), clean + noise("pink", 0.003, len(clean), seed=2)])
    assert gains(stereo, above_db=12)[np.abs(clean) > 0.02].min() == 1


@pytest.mark.parametrize(("rate", "new_rate"), [(48000, 48000), (48000, 44100), (44100, 48000), (8000, 192_000), (96000, 8000)])
def test_ramps_are_where_the_sound_is(rate: int, new_rate: int) -> None:
    """Full gain from the first to the last hop with sound, up within 10 ms, and after 50 ms down within 100 ms."""
    sound = np.zeros((1, 2 * rate), np.float32)
    sound[:, rate // 2 : rate] = 0.1
    gain = gains(sound, peak=0.01, rate=rate, new_rate=new_rate)
    hop = hop_of(rate) / rate
    time = np.arange(len(gain)) / new_rate
    assert gain[(time >= 0.5) & (time < 1 + 0.05)].min() == 1
    assert not gain[(time < 0.5 - hop - 0.01) | (time > 1 + hop + 0.15)].any()
    assert np.all(np.diff(gain[time < 0.5]) >= 0)
    assert np.all(np.diff(gain[time > 1]) <= 0)
    assert np.abs(np.diff(gain)).max() < 1.6 / (0.01 * new_rate)  # no click: the steepest slope of the rise is 1.5 / 10 ms
    first = np.flatnonzero(gain == 1)[0]
    start = (rate // 2 // hop_of(rate)) * hop_of(rate)
    assert (first - 1) * rate < start * new_rate <= (first + 1) * rate


def test_it_rises_before_a_sound_that_is_in_no_earlier_chunk() -> None:
    """At whatever hop a sound starts, and however little is read at once, the 10 ms before it are the same."""
    hop = hop_of(RATE)
    before = set()
    for first in range(240, 260):
        sound = np.zeros((1, 600 * hop), np.float32)
        sound[:, first * hop :] = 0.1
        before.add(gains(sound, peak=0.01, read=100)[first * hop - RATE // 100 : first * hop].tobytes())
    assert len(before) == 1
    rise = np.frombuffer(before.pop(), np.float32)
    assert rise[0] == 0
    assert rise[len(rise) // 2] == pytest.approx(0.5, abs=0.01)


def test_digital_silence_and_what_is_below_the_peak_is_silent() -> None:
    sound = np.full((1, RATE), 1e-4, np.float32)
    assert gains(sound).min() == gains(sound, peak=0.9e-4).min() == 1
    assert not gains(sound, peak=1.1e-4).any()
    assert not gains(0 * sound).any()


def test_a_channel_that_is_silent_opens_nothing() -> None:
    assert not gains(np.zeros((2, 3 * RATE), np.float32), above_db=0).any()


def test_blocks_and_reads_change_no_bit() -> None:
    sound = (calls(3.0)[0] + noise("pink", 0.01, 3 * RATE))[None]
    expected = gains(sound, above_db=12, new_rate=44100, read=1 << 30)
    assert expected.min() == 0
    assert expected.max() == 1
    for block in (1, 17, 4096):
        np.testing.assert_array_equal(gains(sound, above_db=12, new_rate=44100, block=block, read=333), expected)


@pytest.mark.parametrize("rate", [100, 1000, 3_072_000])
def test_unusual_rates(rate: int) -> None:
    sound = noise("white", 0.1, 30_000, rate=rate)[None]
    assert gains(sound, above_db=0, rate=rate, new_rate=rate).shape == (30_000,)


def test_memory_does_not_grow_with_the_length() -> None:
    block = noise("white", 0.01, RATE)[None]

    def ten_minutes() -> Iterator[np.ndarray]:
        for _ in range(600):
            yield block.copy()

    profile = NoiseProfile(sample_rate=RATE, channels=1)
    profile.add(np.tile(block, 4))
    floor = profile.floor
    tracemalloc.start()
    gate = Gate(sounding(ten_minutes(), sample_rate=RATE, floor=floor, above_db=12), rate=RATE, new_rate=RATE)
    for _ in range(600):
        gate.read(RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
