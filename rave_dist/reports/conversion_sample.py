"""The sounds of a conversion's page: a sample of its sources, each next to what every model made of it.

The sample is random and reproducible: sources in the order of a hash of the conversions' ids and their names. It needs one pass
over the items of each model, in constant memory, and is the same in whatever order they come.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from rave_dist.audio.mp3_preview import mp3
from rave_dist.audio.types import Audio
from rave_dist.errors import RaveDistError
from rave_dist.identity import content_id
from rave_dist.records import ConversionItem
from rave_dist.reports.depth_strip import depth_strip
from rave_dist.reports.excerpts import Excerpt, excerpt, loudest_start, match_levels, played
from rave_dist.reports.waveform import waveform

SAMPLED = 12
"""Sources on a page."""


@dataclass
class Sample:
    """The results of one conversion that come first in the order of the sample.

    Args:
        seed: decides the order.

    Attributes:
        items: by source; names of sources are unique in a conversion.
    """

    seed: str
    items: dict[str, ConversionItem] = field(default_factory=dict)
    _last_first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, item: ConversionItem) -> None:
        """Considers an item; failed ones have no sound."""
        if item.state == "failed":
            return
        heapq.heappush(self._last_first, (-_rank(self.seed, item.source), item.source))
        self.items[item.source] = item
        if len(self._last_first) > SAMPLED:
            del self.items[heapq.heappop(self._last_first)[1]]


def sampled_sources(samples: Sequence[Sample]) -> list[str]:
    """The first sources of all samples together, in their order.

    A source among them is among the first of each model that has converted it, so that a model without it failed there.
    """
    names = {source: _rank(sample.seed, source) for sample in samples for source in sample.items}
    return sorted(names, key=lambda name: (names[name], name))[:SAMPLED]


def _rank(seed: str, source: str) -> int:
    return int(content_id({"seed": seed, "source": source}), 16)


@dataclass
class Budget:
    """Bytes that a page may still use for sounds."""

    left: int

    def take(self, size: int) -> bool:
        """Takes a number of bytes, if there are as many."""
        if size > self.left:
            return False
        self.left -= size
        return True


def row(source: str, results: Sequence[ConversionItem | None], names: Sequence[str], budget: Budget) -> dict[str, Any] | None:
    """The template's variables of a source: a cell for the recording and for every model; None if no sound has room.

    Args:
        source: the recording's path or address.
        results: each model's item of it, None where it has none.
        names: of the models.
        budget: of the page.
    """
    places = [source, *(None if item is None else item.output for item in results)]
    found, reasons = _excerpts(places)
    gains = dict(zip(found, match_levels(list(found.values())), strict=True))
    sounds = {index: played(each, gains[index]) for index, each in found.items()}
    peak = max((float(np.abs(sound).max()) for sound in sounds.values()), default=0.0) or 1.0
    name = PurePosixPath(source).name
    cells = []
    for index, title in enumerate(("Recording", *names)):
        item = results[index - 1] if index else None
        cell: dict[str, Any] = {"title": title, "reason": reasons.get(index, ""), "sound": "", "depth": ""}
        cell["preserved"] = item.in_words if item else ""
        if index in found:
            cell |= _player(found[index], sounds[index], gains[index], peak=peak, title=f"{title}, {name}")
            item = results[index - 1] if index else None
            if item is not None:
                place = {"start": found[index].start, "seconds": found[index].seconds}
                cell["depth"] = Markup(depth_strip(item.scores, title=cell["title"], **place))
            if not budget.take(len(cell["sound"]) + len(cell["wave"])):
                cell |= {"sound": "", "reason": "left out: the page has no room for it"}
        cells.append(cell)
    if found and not any(cell["sound"] for cell in cells):
        return None
    return {"name": name, "source": source, "start": next(iter(found.values())).start if found else None, "cells": cells}


def _excerpts(places: Sequence[str | None]) -> tuple[dict[int, Excerpt], dict[int, str]]:
    """The excerpts of a row by column, and the reasons of the missing ones.

    The first place that can be read decides which seconds: the recording's, or where it is away a result's.
    """
    found: dict[int, Excerpt] = {}
    reasons: dict[int, str] = {}
    start: float | None = None
    for index, place in enumerate(places):
        if place is None:
            reasons[index] = "not converted"
            continue
        try:
            if start is None:
                start = loudest_start(place)
            found[index] = excerpt(place, start)
        except (RaveDistError, OSError) as error:
            reasons[index] = f"cannot be read: {error.what if isinstance(error, RaveDistError) else error.strerror or error}"
    return found, reasons


def _player(sound: Excerpt, samples: Audio, gain_db: float, *, peak: float, title: str) -> dict[str, Any]:
    """The variables of a cell; its waveform has the height of the row's loudest peak."""
    level = "silent" if sound.is_silent else f"{sound.lufs:.1f} LUFS".replace("-", "−")
    if not sound.is_silent:
        level += f", played {abs(gain_db):.1f} dB {'louder' if gain_db >= 0 else 'quieter'}"
    alt = escape(f"Waveform of {title}: {sound.seconds:.1f} s, {level}")
    return {
        "level": level,
        "seconds": round(sound.seconds, 3),
        "lufs": round(sound.lufs, 2),
        "gain_db": round(gain_db, 2),
        "wave": Markup(waveform(samples / np.float32(peak), alt=str(alt))),
        "sound": "data:audio/mpeg;base64," + base64.b64encode(mp3(samples, sound.sample_rate)).decode(),
    }
