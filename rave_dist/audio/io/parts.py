"""Files that are several recordings in a row, read as one: chained Ogg, joined MP3.

Decoders stop at the end of the first one, or mistake the header of the next for audio. So each part is decoded as a file
of its own, at the sample rate and channel count of the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rave_dist.audio.io.blocks import conform, reblock
from rave_dist.audio.io.byte_view import Piece
from rave_dist.audio.io.open_file import OpenFile
from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError

TRUNCATED = "truncated"
"""The damage of a part that lacks its end, without further details."""

PartOpener = Callable[[Path | PartialCopy, Sequence[Piece]], AbstractContextManager[OpenFile]]


@dataclass(frozen=True)
class Part:
    """One recording inside a file.

    Attributes:
        pieces: the file as a decoder should see it.
        damage: what its structure shows to be missing, or None.
    """

    pieces: tuple[Piece, ...]
    damage: str | None = None


@dataclass(frozen=True)
class Parts:
    """The recordings of a file, in order, and what should be known about them."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def open_parts(path: Path | PartialCopy, found: Parts, open_part: PartOpener) -> Iterator[OpenFile]:
    """Opens all parts of a file as one recording, with the sample rate and the channels of the first part.

    Raises:
        AudioError: the first part cannot be read.
        OSError: the file cannot be read.
    """
    headers: list[OpenFile | AudioError] = []
    for part in found.parts:
        try:
            with open_part(path, part.pieces) as sound:
                headers.append(sound)
        except AudioError as error:
            headers.append(error)
    readable = [header for header in headers if isinstance(header, OpenFile)]
    if not readable:
        raise next(header for header in headers if isinstance(header, AudioError))
    first = readable[0]

    def read(size: int) -> Iterator[Audio]:
        return reblock(_read(path, found.parts, headers, first, open_part), size)

    yield replace(
        first,
        samples=_total(headers, first),
        tolerance=sum(header.tolerance for header in readable),
        read=read,
        notes=(*found.notes, *_notes(headers, first), *first.notes),
    )


def _read(
    path: Path | PartialCopy,
    parts: Sequence[Part],
    headers: Sequence[OpenFile | AudioError],
    first: OpenFile,
    open_part: PartOpener,
) -> Iterator[Audio]:
    """The audio of all parts; damage in one does not keep the others from being read."""
    damage: list[str] = []
    before = 0.0
    for number, (part, header) in enumerate(zip(parts, headers, strict=True), start=1):
        name = f"part {number} of {len(parts)} (from {before:.3f} s)" if len(parts) > 1 else "the recording"
        if isinstance(header, AudioError):
            damage.append(f"{name} cannot be read: {header.what}")
            continue
        count = 0
        problem = part.damage
        try:
            with open_part(path, part.pieces) as sound:
                audio = conform(
                    sound.read(sound.sample_rate),
                    rate=sound.sample_rate,
                    new_rate=first.sample_rate,
                    channels=sound.channels,
                    new_channels=first.channels,
                )
                for block in audio:
                    count += block.shape[1]
                    yield block
        except AudioError as error:
            problem = f"{error.what} after {count / first.sample_rate:.3f} s"
        missing = ((header.samples or 0) - header.tolerance) / header.sample_rate - count / first.sample_rate
        if problem in (None, TRUNCATED) and missing > 0:
            problem = f"{TRUNCATED}: {count / first.sample_rate:.3f} s of {(header.samples or 0) / header.sample_rate:.3f} s"
        elif problem == TRUNCATED:
            problem = f"{TRUNCATED} after {count / first.sample_rate:.3f} s"
        if problem is not None:
            damage.append(f"{name} is {problem}")
        before += count / first.sample_rate
    if damage:
        raise AudioError("; ".join(damage), where="parts of the file")


def _total(headers: Sequence[OpenFile | AudioError], first: OpenFile) -> int | None:
    total = 0
    for header in headers:
        if isinstance(header, OpenFile):
            if header.samples is None:
                return None
            total += (2 * header.samples * first.sample_rate + header.sample_rate) // (2 * header.sample_rate)
    return total


def _notes(headers: Sequence[OpenFile | AudioError], first: OpenFile) -> Iterator[str]:
    if len(headers) > 1:
        yield f"{len(headers)} recordings are joined in the file; all are used"
    others = {
        (header.sample_rate, header.channels)
        for header in headers
        if isinstance(header, OpenFile) and (header.sample_rate, header.channels) != (first.sample_rate, first.channels)
    }
    for rate, channels in sorted(others):
        yield (
            f"parts at {rate} Hz with {_channels(channels)} are converted to "
            f"{first.sample_rate} Hz with {_channels(first.channels)}"
        )


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
