"""Draws a night as SVG: a row for each card (or host), a bar for each attempt, as high as its share and as long as it lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.sax.saxutils import escape, quoteattr

from rave_dist.scheduling.admission import Host, Share
from rave_dist.scheduling.simulation import Span

_WIDTH, _LEFT, _TOP, _BOTTOM = 1000, 130, 10, 46
_MOST_HEIGHT = 900
_COLOURS = {"done": "#4c78a8", "process died": "#e45756", "host lost": "#f2a541"}
_FONT = 'font-family="sans-serif" font-size="12" fill="#777"'  # legible on white and on black
_LABELLED_PIXELS = 40  # the least height of a row whose bars have names
_HOUR = 3600.0
_TICKS = 12
_TOLERANCE = 1e-6  # of shares


def draw_timeline(spans: Sequence[Span], hosts: Sequence[Host], *, deadline: float | None = None) -> str:
    """The attempts of all runs over time.

    Args:
        spans: the attempts.
        hosts: on which they are.
        deadline: in seconds since the start, drawn as a line.

    Returns:
        An SVG document.
    """
    known = {host.id: host for host in hosts}
    places = [(host.id, gpu) for host in hosts for gpu in range(max(1, host.gpus))]
    end = max([span.end for span in spans] + ([] if deadline is None else [deadline]), default=1.0)
    row = min(60.0, max(4.0, _MOST_HEIGHT / len(places)))
    pixels = (_WIDTH - _LEFT - 10) / end
    bottom = _TOP + row * len(places)
    parts = [_hours(end, pixels, bottom), *(_name(place, known, _TOP + n * row, row) for n, place in enumerate(places))]
    for n, place in enumerate(places):
        own = [replace(span, share=share) for span in spans for share in span.share.all if (share.host, share.gpu) == place]
        for span, offset, part in _lanes(own, known[place[0]]):
            x, y, width = _LEFT + span.start * pixels, _TOP + n * row + offset * row, (span.end - span.start) * pixels
            parts.append(_bar(span, x, y, width, max(0.4, row * part - min(1.0, row / 20))))
    if deadline is not None:
        x = _LEFT + deadline * pixels
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom:.1f}" stroke="#e45756" stroke-dasharray="4 3"/>')
    parts.append(_legend(bottom + 36, [span.ending for span in spans]))
    size = f'viewBox="0 0 {_WIDTH} {bottom + _BOTTOM:.0f}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="timeline of the runs">\n{body}\n</svg>\n'


def _part(share: Share, host: Host) -> float:
    return share.gpus if host.gpus else share.cpus / host.cpus


def _lanes(spans: Sequence[Span], host: Host) -> list[tuple[Span, float, float]]:
    """The attempts of one row with offset and height: in the first gap that holds them, or divided between gaps."""
    placed: list[tuple[Span, float, float]] = []
    for span in sorted(spans, key=lambda span: span.start):
        gaps, low = [], 0.0
        for start, stop in [*sorted((y, y + height) for other, y, height in placed if other.end > span.start), (1.0, 1.0)]:
            gaps.append((low, max(0.0, start - low)))
            low = max(low, stop)
        needed = _part(span.share, host)
        whole = [(y, height) for y, height in gaps if height >= needed - _TOLERANCE]
        for y, height in whole[:1] or gaps:
            if needed > _TOLERANCE and height > _TOLERANCE:
                placed.append((span, y, min(height, needed)))
                needed -= height
    return placed


def _bar(span: Span, x: float, y: float, width: float, height: float) -> str:
    about = f"{span.name}: {span.start / _HOUR:.1f} to {span.end / _HOUR:.1f} h, {span.ending}"
    bar = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width - 0.5):.1f}" height="{height:.1f}" rx="1" '
        f"fill={quoteattr(_COLOURS[span.ending])}><title>{escape(about)}</title></rect>"
    )
    if height < 14 or width < _LABELLED_PIXELS:
        return bar
    letters = int(width / 7)
    text = escape(span.name[:letters])
    return f'{bar}<text x="{x + 4:.1f}" y="{y + 12:.1f}" font-family="sans-serif" font-size="11" fill="#fff">{text}</text>'


def _name(place: tuple[str, int], known: dict[str, Host], y: float, row: float) -> str:
    """A row's name; of rows that are too low, the first of each host has one."""
    host, gpu = place
    single = known[host].gpus <= 1
    if row < 12 and gpu:
        return ""
    text = host if single or row < 12 else f"{host} GPU {gpu}"
    return f'<text x="{_LEFT - 8}" y="{y + min(row, 12):.1f}" text-anchor="end" {_FONT}>{escape(text[:18])}</text>'


def _hours(end: float, pixels: float, bottom: float) -> str:
    """Lines and labels at round hours, or minutes of a short night."""
    steps = (60, 300, 600, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600)
    step = next((step for step in steps if end / step <= _TICKS), steps[-1])
    unit, name = (60.0, "min") if step < _HOUR else (_HOUR, "h")
    marks = []
    for count in range(int(end / step) + 1):
        x = _LEFT + count * step * pixels
        marks.append(f'<path d="M{x:.1f} {_TOP}V{bottom:.1f}" stroke="#999" stroke-opacity="0.3"/>')
        marks.append(
            f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle" {_FONT}>{count * step / unit:.0f} {name}</text>'
        )
    return "\n".join(marks)


def _legend(y: float, endings: Sequence[str]) -> str:
    shown = [ending for ending in _COLOURS if ending in endings]
    return "\n".join(
        f'<rect x="{_LEFT + 130 * n}" y="{y - 10:.1f}" width="10" height="10" fill="{_COLOURS[ending]}"/>'
        f'<text x="{_LEFT + 130 * n + 15}" y="{y:.1f}" {_FONT}>{ending}</text>'
        for n, ending in enumerate(shown)
    )
