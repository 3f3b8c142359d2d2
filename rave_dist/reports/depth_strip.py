"""The familiarity of the seconds that are played, as a strip under the waveform of a result."""

from __future__ import annotations

from markupsafe import escape

_PER_SECOND = 2


def depth_strip(scores: str, *, start: float, seconds: float, title: str) -> str:
    """An SVG as wide as the waveform: the darker a half second, the less familiar it is; empty without scores.

    Args:
        scores: of the whole recording, two digits for each half second.
        start: of the excerpt, in seconds.
        seconds: its length.
        title: of the waveform, not escaped.
    """
    percent = [int(scores[at : at + 2]) for at in range(0, len(scores), 2)]
    first, last = int(start * _PER_SECOND), -(-round((start + seconds) * _PER_SECOND * 1000) // 1000)
    shown = percent[first:last]
    if not shown or seconds <= 0:
        return ""
    offset = first / _PER_SECOND - start
    rects = "".join(
        f'<rect x="{offset + number / _PER_SECOND:g}" width="{1 / _PER_SECOND:g}" height="1" opacity="{1 - score / 100:g}"/>'
        for number, score in enumerate(shown)
    )
    alt = escape(f"Familiarity of {title}, each half second, in percent: {', '.join(map(str, shown))}")
    return (
        f'<svg class="depth" role="img" aria-label="{alt}" viewBox="0 0 {seconds:g} 1" preserveAspectRatio="none">'
        f"<title>{alt}</title>{rects}</svg>"
    )
