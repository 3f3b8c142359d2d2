"""Rates and channels: a tone stays a tone, length is exact, blocks do not matter, what cannot be held vanishes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.resample import resample, resampled_length

RATES = [8000, 11025, 22050, 44100, 48000, 96000, 192000]


def converted(sound: np.ndarray, rate: int, new_rate: int, block: int) -> np.ndarray:
    blocks = (sound[:, i : i + block] for i in range(0, sound.shape[1], block))
    pieces = list(resample(blocks, rate=rate, new_rate=new_rate, channels=len(sound)))
    return np.concatenate([np.zeros((len(sound), 0), np.float32), *pieces], axis=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 3000))
def test_length_is_exact_and_blocks_do_not_matter(samples, rate, new_rate, block):
    sound = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32)
    whole = converted(sound, rate, new_rate, max(samples, 1))
    assert whole.shape[1] == resampled_length(samples, rate, new_rate)
    np.testing.assert_array_equal(converted(sound, rate, new_rate, block), whole)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_pitch_and_place(rate):
    time = np.arange(rate) / rate
    sound = (0.5 * np.sin(2 * np.pi * 1000 * time) * np.hanning(rate)).astype(np.float32)[None]
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100) * np.hanning(44100)
    assert np.abs(converted(sound, rate, 44100, 4096)[0] - expected).max() < 2e-3


def test_what_the_new_rate_cannot_hold_vanishes():
    sound = np.sin(2 * np.pi * 30_000 * np.arange(96_000) / 96_000).astype(np.float32)[None]
    assert np.abs(converted(sound, 96_000, 44_100, 9_600)[0, 2000:-2000]).max() < 1e-3


def test_channels_are_mixed_by_mean_and_repeated():
    block = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(map_channels(block, 1), block.mean(axis=0, keepdims=True))
    np.testing.assert_array_equal(map_channels(block, 2), [block[::2].mean(axis=0), block[1::2].mean(axis=0)])
    np.testing.assert_array_equal(map_channels(block[:1], 2), block[[0, 0]])
    np.testing.assert_array_equal(map_channels(block[:2], 3), block[[0, 1, 0]])
    assert map_channels(block, 6) is block
