import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from rave_dist.reports.figures import Curve, Point, chart, frequency_rows, frequency_ticks, spectrogram


def tone(hz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def brightness(png: bytes) -> np.ndarray:
    """Brightness of the picture's pixels [rows, columns], first row lowest in frequency."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)[::-1]


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
@pytest.mark.parametrize("hz", [200.0, 1000.0, 3500.0])
def test_a_tone_is_a_line_at_its_frequency(rate: int, hz: float) -> None:
    picture = brightness(spectrogram(tone(hz, rate), rate))
    assert picture.shape == (180, 600)
    rows = frequency_rows(rate, 180)
    brightest = rows[picture.mean(axis=1).argmax()]
    assert brightest == pytest.approx(hz, rel=0.12 if hz < 1000 else 0.04)


def test_time_runs_from_left_to_right() -> None:
    sound = np.concatenate([np.zeros(44100, np.float32), tone(1000, 44100)])
    columns = brightness(spectrogram(sound, 44100)).mean(axis=0)
    assert columns[310:].min() > columns[:290].max()


def test_silence_is_dark_and_channels_are_averaged() -> None:
    assert brightness(spectrogram(np.zeros((1, 44100), np.float32), 44100)).max() < 5
    left = tone(1000, 44100)
    assert spectrogram(np.stack([left, left]), 44100) == spectrogram(left, 44100)
    assert brightness(spectrogram(np.stack([left, -left]), 44100)).max() < 5


@pytest.mark.parametrize("num_samples", [1, 100, 599, 601, 5000])
def test_short_sounds_have_a_picture(num_samples: int) -> None:
    assert brightness(spectrogram(tone(1000, 44100)[:num_samples], 44100)).shape == (180, 600)


def test_ticks_lie_where_the_pictures_rows_do() -> None:
    rows = frequency_rows(44100, 1001)
    for (_, height), hz in zip(frequency_ticks(44100), (100, 1000, 10_000), strict=True):
        assert rows[round(height * 1000)] == pytest.approx(hz, rel=0.01)
    assert [name for name, _ in frequency_ticks(8000)] == ["100 Hz", "1 kHz"]


def falling(name: str, steps: int = 600, *, held_out: bool = False) -> Curve:
    return Curve(name, tuple(Point(s, 5 + 15 * float(np.exp(-s / 100))) for s in range(0, steps, 5)), held_out=held_out)


def test_a_chart_names_phases_and_curves_and_takes_the_pages_colours() -> None:
    svg = chart([falling("train"), falling("held out", held_out=True)], steps=600, phase_1_steps=360, unit="distance", log=True)
    ElementTree.fromstring(svg)
    for text in ("phase 1", "phase 2", "train", "held out", "distance"):
        assert text in svg
    assert "var(--train)" in svg
    assert "var(--held-out)" in svg
    assert not re.search(r"(?:fill|stroke): #", svg), "a colour that does not follow the theme"
    assert "<style" not in svg
    assert 'id="figure' not in svg


def test_a_chart_of_phase_1_alone_has_no_phase_2() -> None:
    assert "phase 2" not in chart([falling("train")], steps=600, phase_1_steps=600, unit="distance")


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [Curve("train", ())],
        [Curve("train", (Point(1, 3.0),))],
        [Curve("train", (Point(1, float("nan")), Point(2, float("inf")), Point(3, 2.0)))],
        [Curve("train", (Point(1, -1.0), Point(2, 5.0)))],
        [Curve("train", (Point(1, 0.0), Point(2, 0.0)))],
        [Curve("a <b> & c", (Point(1, 1.0), Point(2, 2.0)))],
    ],
)
@pytest.mark.parametrize("log", [True, False])
def test_odd_curves_are_drawn(curves: list[Curve], log: bool) -> None:
    ElementTree.fromstring(chart(curves, steps=0, phase_1_steps=0, unit="loss", log=log))
