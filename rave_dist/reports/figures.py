"""Pictures of the page: spectrograms as small PNGs, loss curves as SVG in the colours of the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from rave_dist.audio.metrics.spectral import decibels, magnitudes
from rave_dist.audio.types import Audio

LOWEST_HZ = 60.0
HIGHEST_HZ = 16_000.0
QUIETEST_DBFS, LOUDEST_DBFS = -95.0, -15.0  # levels of the darkest and the brightest colour
_COLOURS = 64  # steps of 1.25 dB: PNG packs them three times tighter than 256

# Colours that matplotlib writes, replaced by those of the page, so that one drawing serves light and dark themes.
_THEME = {
    "#010101": "var(--ink)",
    "#020202": "var(--faint)",
    "#030303": "var(--rule)",
    "#040404": "var(--train)",
    "#050505": "var(--held-out)",
    "#060606": "var(--shade)",
    "#070707": "var(--third)",
    "#080808": "var(--fourth)",
}
_INK, _FAINT, _RULE, _TRAIN, _HELD_OUT, _SHADE, _THIRD, _FOURTH = _THEME


@dataclass(frozen=True)
class Point:
    """A measured value at a step of a run."""

    step: int
    value: float


@dataclass(frozen=True)
class Curve:
    """A line of a chart: its name and its points in order of step."""

    name: str
    points: tuple[Point, ...]
    held_out: bool = field(default=False, kw_only=True)


def spectrogram(sound: Audio, sample_rate: int, *, width: int = 600, height: int = 180) -> bytes:
    """A spectrogram as a PNG of ``width`` x ``height`` pixels.

    Frequency is on a log scale from 60 Hz to 16 kHz or half the sample rate. Input: [channels, samples] or [samples];
    channels are averaged.
    """
    mono = np.atleast_2d(sound).mean(axis=0)
    n_fft = 2 ** round(np.log2(0.046 * sample_rate))  # 46 ms, 2048 samples at 44.1 kHz
    hop = max(1, -(-len(mono) // width))
    levels = decibels(magnitudes(mono, n_fft, hop), QUIETEST_DBFS)[: -(-len(mono) // hop)]
    rows = frequency_rows(sample_rate, height) * n_fft / sample_rate
    below = np.minimum(rows.astype(int), levels.shape[1] - 2)
    part = (rows - below).astype(np.float32)
    picture = (levels[:, below] * (1 - part) + levels[:, below + 1] * part).T[::-1]
    scaled = (picture - QUIETEST_DBFS) / (LOUDEST_DBFS - QUIETEST_DBFS)
    image = Image.fromarray(np.clip(scaled * (_COLOURS - 1), 0, _COLOURS - 1).astype(np.uint8), mode="P")
    palette = matplotlib.colormaps["magma"](np.linspace(0, 1, _COLOURS))[:, :3]
    image.putpalette(np.round(palette * 255).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.NEAREST).save(file, format="PNG", optimize=True)
    return file.getvalue()


def highest_hz(sample_rate: int) -> float:
    """The frequency at the upper edge of a spectrogram."""
    return min(HIGHEST_HZ, sample_rate / 2)


def frequency_rows(sample_rate: int, height: int) -> NDArray[np.float64]:
    """The frequency in Hz of each row of a spectrogram, from the lowest up."""
    return np.asarray(np.geomspace(LOWEST_HZ, highest_hz(sample_rate), height))


def frequency_ticks(sample_rate: int) -> list[tuple[str, float]]:
    """Labels for the frequency axis and their heights as a fraction of the picture's."""
    span = np.log(highest_hz(sample_rate) / LOWEST_HZ)
    labels = (("100 Hz", 100.0), ("1 kHz", 1000.0), ("10 kHz", 10_000.0))
    return [(name, float(np.log(hz / LOWEST_HZ) / span)) for name, hz in labels if hz < highest_hz(sample_rate)]


def chart(curves: Sequence[Curve], *, steps: int, phase_1_steps: int, unit: str, log: bool = False) -> str:
    """An SVG of curves over training steps, with the second phase shaded and both named.

    Curves with many points are drawn faintly with a running mean on top. NaN and infinite points are omitted.
    """
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{unit}{steps}{phase_1_steps}{[(c.name, len(c.points)) for c in curves]}",
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _FAINT,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _FAINT,
        "ytick.labelcolor": _FAINT,
        "text.color": _INK,
        "font.size": 9,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        colours = iter((_TRAIN, _THIRD, _FOURTH, _INK))
        drawn = False
        for curve in curves:
            points = [p for p in curve.points if np.isfinite(p.value)]
            if not points:
                continue
            drawn = True
            x = np.array([p.step for p in points])
            y = np.array([p.value for p in points])
            if curve.held_out:
                axes.plot(x, y, color=_HELD_OUT, linewidth=1.8, marker="o", markersize=4, label=curve.name, zorder=4)
                continue
            colour = next(colours, _INK)
            if len(points) > 12:
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
                x, y = _running_mean(x), _running_mean(y)
            axes.plot(x, y, color=colour, linewidth=1.6, label=curve.name)
        lowest, highest = axes.get_ylim()
        if log and lowest > 0 and highest / lowest > 4:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        _mark_phases(axes, steps, phase_1_steps)
        axes.set_ylabel(unit)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_short_number))
        axes.grid(axis="y", color=_RULE, linewidth=0.6, alpha=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if drawn:
            figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
        return _themed(figure)


def _mark_phases(axes: Any, steps: int, phase_1_steps: int) -> None:
    end = max(steps, 1)
    axes.set_xlim(-0.02 * end, end * 1.02)
    edge = axes.get_xaxis_transform()
    label = {"transform": edge, "fontsize": 8, "color": _FAINT, "va": "bottom"}
    if 0 < phase_1_steps < end:
        axes.axvspan(phase_1_steps, end * 1.02, color=_SHADE, linewidth=0, zorder=0)
        axes.text((phase_1_steps + end * 1.02) / 2, 1.01, "phase 2 · adversarial", ha="center", **label)
    axes.text(min(phase_1_steps or end, end) / 2, 1.01, "phase 1 · representation", ha="center", **label)


def _running_mean(values: NDArray[Any]) -> NDArray[Any]:
    length = max(3, len(values) // 20)
    return np.convolve(values, np.ones(length) / length, mode="valid")


def _short_number(value: float, _: int) -> str:
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _themed(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids repeat in every drawing of a page
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)  # would style the whole page
    svg = re.sub(r" font-family: [^;]*;", "", svg)  # inherited from the page
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, variable)
    return svg
