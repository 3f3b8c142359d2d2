"""A long recording in parts, played by several processes and kept in the store until its output is complete.

The recording is decoded and resampled by one process, in order; what the model makes of it is computed elsewhere, part by part,
from the same chunks as in one process, so the samples are the same. A conversion that was killed plays only the parts that
were in progress again.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.io.sources import AudioSource
from rave_dist.audio.types import Audio
from rave_dist.conversion.corpus import Plan, Task
from rave_dist.conversion.stream import Played, Playing, StreamConverter, chunk_samples
from rave_dist.errors import MissingKeyError
from rave_dist.identity import content_id
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store

LONG_SECONDS = 300.0
"""Recordings from this length on are converted in parts."""

_PART_SECONDS = 30.0  # what is lost with a killed process; less costs more objects
_LOSSY = (".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".mp4", ".webm")
_LOSSY_BYTES, _OTHER_BYTES = 16_000, 176_400  # per second: 128 kbit/s, and a CD

Play = Callable[[str, list[Chunk], Playing], Callable[[], Played]]
"""Starts to play chunks whose result is to be kept under a key, and returns what waits for the result."""


def is_long(source: AudioSource) -> bool:
    """Whether a recording is converted in parts, by its size: of many thousands not even the headers are read."""
    per_second = _LOSSY_BYTES if source.uri.lower().endswith(_LOSSY) else _OTHER_BYTES
    return source.bytes / per_second >= LONG_SECONDS


class Parts:
    """The parts of one output in the store.

    Args:
        store: of the journal.
        plan: the conversion.
        task: the source.
        chunk_seconds: seconds of audio in the model at once, which the last bits of the samples depend on.
    """

    def __init__(self, store: Store, plan: Plan, task: Task, chunk_seconds: float) -> None:
        core = chunk_samples(plan.card, chunk_seconds)
        identity = {"output": task.output, "source": task.source.name, "bytes": task.source.fingerprint, "chunk": core}
        self.folder = plan.folder.parts_of(content_id(identity))
        self.chunks = max(1, int(_PART_SECONDS * plan.card.sample_rate) // core)
        self._store = store

    def key(self, number: int) -> str:
        """The key of a part."""
        return f"{self.folder}/{number}.npy"

    def found(self) -> frozenset[str]:
        """The keys of the parts that are there."""
        return frozenset(entry.key for entry in self._store.list(self.folder))

    def delete(self) -> None:
        """Removes all."""
        self._store.delete_folder(self.folder)


def write_part(store: Store, key: str, played: Played) -> None:
    """Stores a part: its sound, then its latents if there are any."""
    data = io.BytesIO()
    for array in played:
        if array is not None:
            np.save(data, array, allow_pickle=False)
    store.write_bytes(key, data.getvalue())


def read_part(store: Store, key: str) -> Played | None:
    """A stored part; None if it has been removed."""
    try:
        data = io.BytesIO(store.read_bytes(key))
    except MissingKeyError:
        return None
    sound: Audio = np.load(data, allow_pickle=False)
    latents: Audio | None = np.load(data, allow_pickle=False) if data.tell() < len(data.getbuffer()) else None
    return Played(sound, latents)


class PartsConverter(StreamConverter):
    """Converts a stream whose parts are played elsewhere, some ahead of the others.

    Args:
        card: of the model.
        store: of the parts.
        parts: of the output.
        play: starts to play a part.
        ahead: how many parts are played at once.
    """

    def __init__(self, card: ModelCard, store: Store, parts: Parts, play: Play, *, ahead: int) -> None:
        self.card, self.batches = card, None
        self._store, self._parts, self._play, self._ahead = store, parts, play, ahead

    def _play_all(self, chunks: Iterator[Chunk], playing: Playing) -> Iterator[Played]:
        found = self._parts.found()
        waiting: deque[Callable[[], Played]] = deque()
        number = 0
        while part := list(islice(chunks, self._parts.chunks)):
            key = self._parts.key(number)
            kept = partial(self._read, key, part, playing)
            waiting.append(kept if key in found else self._play(key, part, playing))
            number += 1
            if len(waiting) >= self._ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def _read(self, key: str, part: list[Chunk], playing: Playing) -> Played:
        played = read_part(self._store, key)
        return self._play(key, part, playing)() if played is None else played
