"""Waveforms as SVG, in the colours of the page's theme: small enough for a page with hundreds of sounds."""

from __future__ import annotations

import numpy as np

from rave_dist.audio.types import Audio

COLUMNS = 240
HEIGHT = 100  # units of the drawing from -1 to 1


def waveform(sound: Audio, *, alt: str) -> str:
    """The outline of a sound: its highest and lowest sample in each of at most 240 columns, all channels together.

    Input: [channels, samples], full scale 1, which is the drawing's height. ``alt`` must be escaped.
    """
    samples = sound.shape[1]
    columns = min(COLUMNS, samples)
    body = ""
    if columns:
        starts = np.arange(columns) * samples // columns
        highest = np.maximum.reduceat(sound.max(axis=0), starts)
        lowest = np.minimum.reduceat(sound.min(axis=0), starts)
        # At least a unit thick, so that silence is a line and not nothing.
        top = np.round((1 - np.clip(highest, -1, 1)) * HEIGHT / 2 - 0.5, 1)
        bottom = np.round((1 - np.clip(lowest, -1, 1)) * HEIGHT / 2 + 0.5, 1)
        upper = " ".join(f"{x},{y:g}" for x, y in enumerate(top))
        lower = " ".join(f"{x},{y:g}" for x, y in reversed(list(enumerate(bottom))))
        body = f'<polygon points="{upper} {lower}"/>'
    return (
        f'<svg class="wave" role="img" aria-label="{alt}" viewBox="0 0 {max(columns - 1, 1)} {HEIGHT}" '
        f'preserveAspectRatio="none">{body}</svg>'
    )
