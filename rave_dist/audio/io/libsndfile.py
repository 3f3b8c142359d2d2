"""Decoding with libsndfile: WAV of all kinds, FLAC, Ogg, Opus, MP3, AIFF, CAF, W64 and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from rave_dist.audio.io.bitstream import bitstream_in
from rave_dist.audio.io.byte_view import ByteView, Piece
from rave_dist.audio.io.containers import mp3_length_is_known
from rave_dist.audio.io.open_file import LOSSY_TOLERANCE_SAMPLES, OpenFile
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError

_LOSSY_SUBTYPES = {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
_UNKNOWN_FRAMES = 2**60  # libsndfile's value for an unknown length is above this
_PIECE_SAMPLES = 16384  # short, so that little is lost before damage


@contextmanager
def open_file(path: Path, pieces: Sequence[Piece] | None = None) -> Iterator[OpenFile | None]:
    """Opens a file; None if libsndfile cannot read it, or would not read all of it.

    Args:
        path: of the file.
        pieces: of the file, where it is to be read differently from how it lies there.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    # By descriptor: the extension and characters that are not UTF-8 do not matter.
    with open(path, "rb", buffering=0) as source:
        seen = source.fileno() if pieces is None else ByteView(source, pieces)
        try:
            file = soundfile.SoundFile(seen, closefd=False)
        except soundfile.SoundFileError:
            yield None
            return
        with file:
            if file.format == "MP3" and not mp3_length_is_known(path):
                yield None
                return
            yield OpenFile(
                sample_rate=file.samplerate,
                channels=file.channels,
                samples=file.frames if 0 <= file.frames < _UNKNOWN_FRAMES else None,
                format=file.format,
                subtype=file.subtype,
                tolerance=LOSSY_TOLERANCE_SAMPLES if file.subtype in _LOSSY_SUBTYPES else 0,
                bitstream=bitstream_in(file),
                read=partial(_read, file, seen if isinstance(seen, ByteView) else None),
            )


def _read(file: soundfile.SoundFile, view: ByteView | None, size: int) -> Iterator[Audio]:
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
                break
            if not count:
                break
            filled += count
        if filled:
            yield np.ascontiguousarray(buffer[:filled].T)
        if view is not None and view.error is not None:
            raise view.error
        if damage is not None:
            raise damage
        if filled < size:
            return
