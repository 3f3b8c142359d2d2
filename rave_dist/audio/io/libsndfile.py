"""Decoding with libsndfile: WAV of all kinds, FLAC, Ogg, Opus, MP3, AIFF, CAF, W64 and more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from rave_dist.audio.io.bitstream import bitstream_in, may_hold_bitstream
from rave_dist.audio.io.blocks import cut
from rave_dist.audio.io.byte_view import ByteView, Piece, Source, file_size
from rave_dist.audio.io.fact import fact_samples
from rave_dist.audio.io.mpeg import declares_length
from rave_dist.audio.io.open_file import LOSSY_TOLERANCE_SAMPLES, OpenFile
from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError

_LOSSY_SUBTYPES = {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
_BLOCK_SUBTYPES = {"IMA_ADPCM", "MS_ADPCM", "GSM610"}
_UNKNOWN_FRAMES = 2**60  # libsndfile's value for an unknown length is above this
_PIECE_SAMPLES = 16384  # short, so that little is lost before damage
_STEP_SAMPLES = 256


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file that is read from its start to its end.

    The package seeks after every read where it can. What follows is then decoded without what it shares with the frames before.
    """

    def seekable(self) -> bool:
        return self.subtype not in _LOSSY_SUBTYPES and bool(super().seekable())


@contextmanager
def open_file(path: Path | PartialCopy, pieces: Sequence[Piece] | None = None) -> Iterator[OpenFile | None]:
    """Opens a file; None if libsndfile cannot read it, or would not read all of it.

    Args:
        path: of the file.
        pieces: of the file, where it is to be read differently from how it lies there.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    with _source(path, pieces) as seen:
        try:
            file = _SoundFile(seen, closefd=False)
        except soundfile.SoundFileError:
            yield None
            return
        with file:
            if file.format == "MP3" and not _seen(path, pieces, declares_length):
                yield None
                return
            samples = file.frames if 0 <= file.frames < _UNKNOWN_FRAMES else None
            if file.subtype in ("OPUS", "VORBIS"):
                file.seek(0)  # to the first sample of a recording whose time does not start at 0
            read = partial(_read, file, seen if isinstance(seen, ByteView) else None)
            if samples is not None and file.subtype in _BLOCK_SUBTYPES:
                samples = _seen(path, pieces, partial(fact_samples, samples=samples))
                read = partial(_shortened, read, samples)
            yield OpenFile(
                sample_rate=file.samplerate,
                channels=file.channels,
                samples=samples,
                format=file.format,
                subtype=file.subtype,
                tolerance=LOSSY_TOLERANCE_SAMPLES if file.subtype in _LOSSY_SUBTYPES else 0,
                bitstream=_bitstream(path, pieces) if may_hold_bitstream(file) else None,
                read=read,
            )


@contextmanager
def _source(path: Path | PartialCopy, pieces: Sequence[Piece] | None) -> Iterator[int | ByteView]:
    """What libsndfile opens: a descriptor, so that the extension and characters that are not UTF-8 do not matter, or a view."""
    with path.open("rb", buffering=0) as source:
        if pieces is None and isinstance(path, Path):
            yield source.fileno()
        else:
            yield ByteView(source, [range(file_size(source))] if pieces is None else pieces)


def _bitstream(path: Path | PartialCopy, pieces: Sequence[Piece] | None) -> str | None:
    """As `bitstream_in`, with a file of its own: libsndfile does not recover from damage that it meets there."""
    with _source(path, pieces) as seen, suppress(soundfile.SoundFileError), soundfile.SoundFile(seen, closefd=False) as file:
        return bitstream_in(file)
    return None


def _seen(path: Path | PartialCopy, pieces: Sequence[Piece] | None, look: Callable[[Source], int]) -> int:
    """What a function finds in the bytes that the decoder sees."""
    with path.open("rb") as source:
        return look(source if pieces is None else ByteView(source, pieces))


def _shortened(read: Callable[[int], Iterator[Audio]], samples: int, size: int) -> Iterator[Audio]:
    return cut(read(size), iter([(0, samples)]), 0)


def _read(file: soundfile.SoundFile, view: ByteView | None, size: int) -> Iterator[Audio]:
    done = 0
    while True:
        buffer = np.empty((size, file.channels), dtype=np.float32)
        filled = 0
        damage: AudioError | None = None
        while filled < size:
            try:
                count = len(file.read(out=buffer[filled : filled + _PIECE_SAMPLES]))
            except soundfile.SoundFileError as error:
                damage = AudioError("damaged")
                damage.__cause__ = error
                if file.format == "FLAC":
                    filled += _read_again(file, done + filled, buffer[filled : filled + _PIECE_SAMPLES])
                break
            if not count:
                break
            filled += count
        done += filled
        if filled:
            yield np.ascontiguousarray(buffer[:filled].T)
        if view is not None and view.error is not None:
            raise view.error
        if damage is not None:
            raise damage
        if filled < size:
            return


def _read_again(file: soundfile.SoundFile, start: int, buffer: np.ndarray) -> int:
    """Reads what lies before damage in a piece, in steps shorter than a frame; returns the number of samples."""
    count = 0
    with suppress(soundfile.SoundFileError):
        file.seek(start)
        while count < len(buffer) and (step := len(file.read(out=buffer[count : count + _STEP_SAMPLES]))):
            count += step
    return count
