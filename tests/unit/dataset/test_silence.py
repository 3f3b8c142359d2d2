"""Silence is found where it is, and only there, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.silence import Amplitudes, sounding_spans

RATE = 1000
RECIPE = Recipe(sample_rate=RATE, channels=1)  # frames of 20 samples; 2 s of silence are 2000, margins 500 and 250


def spans(pcm: np.ndarray, block: int = 333) -> tuple[tuple[int, int], ...]:
    amplitudes = Amplitudes(RECIPE.frame)
    for start in range(0, pcm.shape[1], block):
        amplitudes.add(pcm[:, start : start + block])
    return sounding_spans(amplitudes.finish(), samples=pcm.shape[1], recipe=RECIPE)


def sounding(*stretches: tuple[int, int], samples: int, channels: int = 1) -> np.ndarray:
    pcm = np.zeros((channels, samples), np.int16)
    for start, stop in stretches:
        pcm[-1, start:stop] = np.where(np.arange(start, stop) % 2, 8000, -8000)
    return pcm


@pytest.mark.parametrize(
    ("stretches", "samples", "expected"),
    [
        ([(0, 10_000)], 10_000, [(0, 10_000)]),
        ([(0, 1000), (5000, 6000)], 6000, [(0, 1500), (4750, 6000)]),
        ([(0, 1000), (2900, 4000)], 4000, [(0, 4000)]),  # a pause of 1.9 s is music
        ([(4000, 5000)], 9000, [(3750, 5500)]),
        ([(4000, 5000)], 5007, [(3750, 5007)]),
        ([(1900, 5000)], 5000, [(0, 5000)]),
        ([], 5000, []),
        ([(0, 1000), (4000, 5000), (8000, 9000)], 12_000, [(0, 1500), (3750, 5500), (7750, 9500)]),
    ],
)
def test_long_silence_is_cut_and_margins_stay(stretches, samples, expected):
    for block in (1, 7, 333, 100_000):
        assert list(spans(sounding(*stretches, samples=samples), block)) == expected


def test_an_offset_is_no_sound_and_one_channel_is_enough():
    pcm = sounding((0, 1000), samples=6000, channels=2) + np.int16(3000)
    assert spans(pcm) == ((0, 1500),)
    assert spans(np.full((1, 5000), 3000, np.int16)) == ()


def test_the_threshold():
    quiet = sounding((0, 5000), samples=5000)
    level = 2**15 * 10 ** (RECIPE.silence_dbfs / 20)
    assert spans((np.sign(quiet) * np.ceil(level + 1)).astype(np.int16)) == ((0, 5000),)
    assert spans((np.sign(quiet) * np.floor(level - 1)).astype(np.int16)) == ()


def test_a_single_sample_is_a_click():
    assert spans(np.array([[9000]], np.int16)) == ((0, 1),)
    assert spans(np.array([[0]], np.int16)) == ()
