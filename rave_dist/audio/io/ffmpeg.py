"""Decoding with FFmpeg (PyAV): AAC and M4A, WMA, audio tracks of videos, and other formats that libsndfile cannot read."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from rave_dist.audio.io.byte_view import ByteView, Piece
from rave_dist.audio.io.open_file import LOSSY_TOLERANCE_SAMPLES, OpenFile
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError

# No playlists and no network: opening a file must not open others.
_FORMATS = (
    "aac,ac3,aea,aiff,amr,ape,asf,ast,au,avi,bonk,caf,dsf,dss,dts,dtshd,dv,eac3,flac,flv,iff,ircam,ivr,matroska,webm,mlp,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,osq,pvf,qcp,qoa,rka,rm,shn,tak,truehd,tta,"
    "voc,vqf,w64,wav,wavarc,wsd,wtv,wv,xwma"
)
# Tags that are not UTF-8 must not make a file unreadable: the default from PyAV 19 on, an option before.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
# Containers whose headers give the length; for the others FFmpeg estimates it from the bit rate.
_EXACT = {"mov", "matroska", "asf", "wv", "tta", "ape", "flac", "wav", "aiff", "caf"}
_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@contextmanager
def open_file(path: Path, pieces: Sequence[Piece] | None = None) -> Iterator[OpenFile]:
    """Opens a file's first audio track.

    Args:
        path: of the file.
        pieces: of the file, where it is to be read differently from how it lies there.

    Raises:
        AudioError: not a media file, no audio track, or an audio track that cannot be decoded.
        OSError: the file does not exist or cannot be read.
    """
    with open(path, "rb") as file:
        try:
            seen = file if pieces is None else ByteView(file, pieces)
            container = av.open(seen, "r", container_options={"format_whitelist": _FORMATS}, **_TAGS)
        except (av.FFmpegError, OSError) as error:
            _raise_if_unreadable(error)
            raise AudioError("not a readable audio file") from error
        with closing(container):
            if not container.streams.audio:
                raise AudioError("the file has no audio track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError("unknown audio encoding")
            stream.codec_context.options = {"err_detect": "crccheck+explode"}  # report damage, do not conceal it
            frames = container.decode(stream)
            # HE-AAC: only the first frame gives the sample rate, not the header.
            try:
                first = next(frames, None)
            except (av.FFmpegError, OSError) as error:
                _raise_if_unreadable(error)
                raise AudioError("the audio cannot be decoded") from error
            rate = first.sample_rate if first is not None else stream.codec_context.sample_rate
            channels = first.layout.nb_channels if first is not None else stream.codec_context.channels
            samples = _declared(container, stream, rate) if first is not None else 0
            # An MP4's edit list ends inside its last frame, which FFmpeg returns whole.
            limit = samples if container.format.name.startswith("mov") else None

            def read(size: int) -> Iterator[Audio]:
                return _blocks(chain([first] if first is not None else [], frames), rate, channels, size, limit)

            yield OpenFile(
                sample_rate=rate,
                channels=channels,
                samples=samples,
                format=container.format.name.split(",")[0],
                subtype=stream.codec_context.name,
                tolerance=LOSSY_TOLERANCE_SAMPLES,
                read=read,
            )


def _raise_if_unreadable(error: Exception) -> None:
    """Raises errors of the disk; EINVAL comes from a damaged file that makes FFmpeg seek to an impossible position."""
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError) and error.errno != errno.EINVAL:
        raise error


def _declared(container: Any, stream: Any, rate: int) -> int | None:
    if container.format.name.split(",")[0] not in _EXACT:
        return None
    if stream.duration is not None and stream.duration > 0:
        return round(float(stream.duration * stream.time_base) * rate)
    if container.duration and len(container.streams) == 1:  # in a video the picture may be longer than the audio
        return round(float(container.duration) * rate / av.time_base)
    return None


def _blocks(frames: Iterator[Any], rate: int, channels: int, size: int, limit: int | None) -> Iterator[Audio]:
    parts: list[Audio] = []
    held = read = 0
    damage: AudioError | None = None
    while True:
        try:
            frame = next(frames, None)
        except (av.FFmpegError, OSError) as error:
            _raise_if_unreadable(error)
            damage = AudioError("damaged")
            damage.__cause__ = error
            break
        if frame is None:
            break
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            damage = AudioError(f"the format changes to {frame.sample_rate} Hz and {frame.layout.nb_channels} channels")
            break
        part = _to_float(frame)
        if limit is not None:
            part = part[:, : max(0, limit - read)]
        read += part.shape[1]
        parts.append(part)
        held += part.shape[1]
        if held >= size:
            joined = np.concatenate(parts, axis=1)
            whole = held - held % size
            for start in range(0, whole, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            parts, held = [joined[:, whole:]], held - whole
    if held:
        yield np.concatenate(parts, axis=1)
    if damage is not None:
        raise damage


def _to_float(frame: Any) -> Audio:
    """A frame's samples as float32 [channels, n], full scale 1."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    samples: Audio = array.astype(np.float32)
    if kind == "u8":
        samples -= 128
    return samples / np.float32(_SCALE[kind]) if kind in _SCALE else samples
