"""Waveforms as SVG: what they show is in the sound."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from rave_dist.reports.waveform import COLUMNS, HEIGHT, waveform


def outline(svg: str) -> np.ndarray:
    """The points of the outline [points, (x, y)], upper edge first."""
    (points,) = re.findall(r'points="([^"]*)"', svg)
    return np.array([[float(value) for value in pair.split(",")] for pair in points.split()])


def test_a_burst_is_drawn_where_it_is_and_as_high_as_it_is() -> None:
    sound = np.zeros((2, 48000), np.float32)
    sound[1, 24000:24200] = 0.5
    sound[0, 36000:36200] = -1
    svg = waveform(sound, alt="a burst")
    assert ElementTree.fromstring(svg).attrib["aria-label"] == "a burst"
    points = outline(svg)
    upper, lower = points[:COLUMNS], points[COLUMNS:][::-1]
    middle = HEIGHT / 2
    assert upper[COLUMNS // 2, 1] == middle - HEIGHT / 4 - 0.5
    assert lower[3 * COLUMNS // 4, 1] == HEIGHT + 0.5
    assert upper[10, 1] == middle - 0.5, "silence is a line"


def test_sounds_shorter_than_the_drawing_and_empty_ones_are_drawn() -> None:
    assert len(outline(waveform(np.full((1, 7), 0.1, np.float32), alt="x"))) == 14
    assert "polygon" not in waveform(np.zeros((1, 0), np.float32), alt="x")
