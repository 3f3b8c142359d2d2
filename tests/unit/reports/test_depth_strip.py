"""The strip under a waveform: a half second of the excerpt for each score, at its place."""

from __future__ import annotations

import re

import pytest

from rave_dist.reports.depth_strip import depth_strip


@pytest.mark.parametrize(
    ("start", "seconds", "shown", "first_x"),
    [(0.0, 1.0, [99, 50], 0.0), (0.6, 1.0, [50, 0, 10], -0.1), (1.5, 5.0, [10, 20], 0.0), (0.5, 0.4, [50], 0.0)],
)
def test_the_half_seconds_of_the_excerpt_are_shown_at_their_places(
    start: float, seconds: float, shown: list[int], first_x: float
) -> None:
    svg = depth_strip("9950001020", start=start, seconds=seconds, title='a "b"')
    opacities = [float(value) for value in re.findall(r'opacity="([0-9.]+)"', svg)]
    assert opacities == pytest.approx([1 - score / 100 for score in shown])
    assert float(re.findall(r'rect x="([-0-9.e]+)"', svg)[0]) == pytest.approx(first_x)
    assert '"b"' not in svg


def test_without_scores_there_is_no_strip() -> None:
    assert depth_strip("", start=0, seconds=5, title="a") == ""
