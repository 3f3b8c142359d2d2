"""The split of a dataset into training and held-out audio.

About a tenth of the audio is held out, at least one window and at most one minute: whole sources if some of them together have
about that length, otherwise the end of the longest segment, separated by a gap of one window so that no training window is
adjacent to a validation window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rave_dist.dataset.read import Segment, open_segments, outline, read_segments
from rave_dist.errors import DatasetError
from rave_dist.records import DatasetManifest
from rave_dist.storage.store import Store

_SHARE = 0.1
_MOST_SECONDS = 60
_FEWEST_SOURCES = 4


@dataclass(frozen=True)
class Split:
    """Segments to train on and segments to validate on; no sample is in both."""

    train: list[Segment]
    validation: list[Segment]


def split(segments: Sequence[Segment], *, sample_rate: int, window: int) -> Split:
    """Splits segments; the same segments are always split in the same way.

    Args:
        segments: as `read_segments` gives them.
        sample_rate: in Hz.
        window: samples of a training window.

    Raises:
        DatasetError: fewer than two windows of audio.
    """
    total = _samples(segments)
    if total < 2 * window:
        raise DatasetError(
            f"only {total / sample_rate:.2f} s of audio: training and validation need a window of"
            f" {window / sample_rate:.2f} s each",
            fix="add recordings, or set a smaller window",
        )
    target = min(max(round(_SHARE * total), window), _MOST_SECONDS * sample_rate, total // 2)
    return _by_source(segments, target) or _by_time(segments, target, window)


def split_dataset(store: Store, manifest: DatasetManifest, *, window: int, stop: Callable[[], bool] = lambda: False) -> Split:
    """All audio of a dataset, divided; in a file of this machine, see `open_segments`, also about ``stop``.

    Raises:
        DatasetError: a shard is missing or damaged, or there are fewer than two windows of audio.
        StoreError: this machine's disk is full.
        isolated.Stopped: ``stop`` returned True.
    """
    split(outline(manifest), sample_rate=manifest.sample_rate, window=window)  # refuses too little audio before it is read
    return split(open_segments(store, manifest, stop=stop), sample_rate=manifest.sample_rate, window=window)


def read_held_out(store: Store, manifest: DatasetManifest, *, window: int) -> list[Segment]:
    """The held-out audio of a dataset in memory; reads no shard without any.

    Raises:
        DatasetError: a shard is missing or damaged, or there are fewer than two windows of audio.
    """
    held_out = split(outline(manifest), sample_rate=manifest.sample_rate, window=window).validation
    return read_segments(store, manifest, held_out)


def _by_source(segments: Sequence[Segment], target: int) -> Split | None:
    lengths: dict[str, int] = {}
    for segment in segments:
        lengths[segment.source_id] = lengths.get(segment.source_id, 0) + segment.pcm.shape[1]
    if len(lengths) < _FEWEST_SOURCES:
        return None
    held: set[str] = set()
    held_samples = 0
    # In an order independent of names: neighbouring files are often takes of the same phrase.
    for source_id in sorted(lengths, key=lambda i: hashlib.sha256(i.encode()).digest()):
        if held_samples + lengths[source_id] <= 1.5 * target:
            held.add(source_id)
            held_samples += lengths[source_id]
        if held_samples >= target:
            break
    if held_samples < 0.75 * target:
        return None
    return Split([s for s in segments if s.source_id not in held], [s for s in segments if s.source_id in held])


def _by_time(segments: Sequence[Segment], target: int, window: int) -> Split:
    longest = max(range(len(segments)), key=lambda index: segments[index].pcm.shape[1])
    segment = segments[longest]
    length = segment.pcm.shape[1]
    others = [s for index, s in enumerate(segments) if index != longest]
    # If even the longest is too short, training, gap and validation get a third each.
    held = min(target, length // 3)
    gap = min(window, length // 3)
    if held < target and _samples(others) >= max(window, length):
        return Split(others, [segment])
    before = Segment(segment.source_id, segment.start, segment.pcm[:, : length - held - gap])
    after = Segment(segment.source_id, segment.start + length - held, segment.pcm[:, length - held :])
    train = [*segments[:longest], before, *segments[longest + 1 :]]
    return Split(train, [after])


def _samples(segments: Sequence[Segment]) -> int:
    return sum(s.pcm.shape[1] for s in segments)
