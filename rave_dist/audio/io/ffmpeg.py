"""Decoding with FFmpeg (PyAV): AAC and M4A, WMA, audio tracks of videos, and other formats that libsndfile cannot read."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from rave_dist.audio.io.blocks import conform, cut, reblock
from rave_dist.audio.io.byte_view import ByteView, Piece, Source, file_size
from rave_dist.audio.io.joined import is_padding
from rave_dist.audio.io.matroska import declares_duration
from rave_dist.audio.io.mp4 import Timeline, read_timeline
from rave_dist.audio.io.open_file import LOSSY_TOLERANCE_SAMPLES, OpenFile
from rave_dist.audio.io.packet_damage import PacketDamage, lacks_bytes
from rave_dist.audio.io.partial_copy import PartialCopy
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
_EXACT_ALONE = {"flv"}  # its header gives the length of the longest track
# Containers whose packets have times, and whose readers skip damaged packets without an error.
_TIMED = {"mpegts", "mpeg", "flv", "nut"}
_CONTIGUOUS = {"mlp", "truehd"}  # nothing lies between their packets
# Edit lists of MP4 are applied here, to the sample.
_OPTIONS = {"format_whitelist": _FORMATS, "ignore_editlist": "1"}
_ENCODER_SECONDS = Fraction(1, 10)  # what encoders add before and behind the audio, and edit lists leave out
_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@contextmanager
def open_file(path: Path | PartialCopy, pieces: Sequence[Piece] | None = None) -> Iterator[OpenFile]:
    """Opens a file's default audio track, or else the first one.

    Args:
        path: of the file.
        pieces: of the file, where it is to be read differently from how it lies there.

    Raises:
        AudioError: not a media file, no audio track, or an audio track that cannot be decoded.
        OSError: the file does not exist or cannot be read.
    """
    with path.open("rb") as source:
        file: Any = source if pieces is None else ByteView(source, pieces)
        try:
            container = open_container(file)
        except (av.FFmpegError, OSError) as error:
            _raise_if_unreadable(error)
            raise AudioError("not a readable audio file") from error
        with closing(container):
            stream = _default_track(container)
            kind = container.format.name.split(",")[0]
            stream.codec_context.options = {"err_detect": "crccheck+explode"}  # report damage, do not conceal it
            timeline = read_timeline(file, stream.id, {**container.metadata, **stream.metadata}) if kind == "mov" else None
            frames = _frames(container, stream, file, trim=timeline is not None)
            # HE-AAC: only the first frame gives the sample rate, not the header.
            first = next(frames, None)
            rate = first.rate if first is not None else stream.codec_context.sample_rate
            channels = len(first.audio) if first is not None else stream.codec_context.channels

            def read(size: int) -> Iterator[Audio]:
                parts = _conformed(chain([first] if first is not None else [], frames), rate, channels)
                if timeline is not None and first is not None:
                    parts = cut(parts, _in_samples(timeline, rate), round(first.seconds * rate))
                yield from reblock(parts, size)
                if isinstance(file, ByteView) and file.error is not None:
                    raise file.error

            yield OpenFile(
                sample_rate=rate,
                channels=channels,
                samples=_declared(container, stream, rate, timeline, file) if first is not None else 0,
                format=kind,
                subtype=stream.codec_context.name,
                tolerance=_tolerance(stream, rate),
                read=read,
                notes=(*_other_tracks(container, stream), *_left_out(timeline)),
            )


def open_container(file: Any) -> Any:
    """Opens a file that is open for reading, and no other that it names.

    Raises:
        av.FFmpegError: it cannot be opened.
        OSError: it cannot be read.
    """
    return av.open(file, "r", container_options=_OPTIONS, **_TAGS)


def _default_track(container: Any) -> Any:
    """The audio track that is flagged as the default, else the first one, of those that can be decoded."""
    tracks = container.streams.audio
    if not tracks:
        raise AudioError("the file has no audio track")
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise AudioError("unknown audio encoding")
    return next((track for track in known if track.disposition & av.stream.Disposition.default), known[0])


def _other_tracks(container: Any, chosen: Any) -> tuple[str, ...]:
    others = [
        f"{number} ({_describe(track)})"
        for number, track in enumerate(container.streams.audio, start=1)
        if track.index != chosen.index
    ]
    if not others:
        return ()
    used = 1 + [track.index for track in container.streams.audio].index(chosen.index)
    return (f"only audio track {used} of {len(others) + 1} is used, not {' and '.join(others)}",)


def _describe(track: Any) -> str:
    context = track.codec_context
    words = [track.metadata.get("title"), track.language if track.language != "und" else None]
    if context is None:
        words.append("unknown encoding")
    else:
        words += [context.name, "1 channel" if context.channels == 1 else f"{context.channels} channels"]
    return ", ".join(word for word in words if word)


def _in_samples(timeline: Timeline, rate: int) -> Iterator[tuple[int, int | None]]:
    for start, end in timeline.spans:
        yield round(start * rate), None if end is None else round(end * rate)


def _left_out(timeline: Timeline | None) -> Iterator[str]:
    if timeline is None:
        return
    if timeline.reordered:
        yield "its edit list repeats or reorders parts, which are read once and in the order of the recording"
    if timeline.length is not None and timeline.used is not None and timeline.length - timeline.used > _ENCODER_SECONDS:
        yield f"its edit list leaves out {float(timeline.length - timeline.used):.3f} s"


class _Frame(NamedTuple):
    rate: int
    audio: Audio
    seconds: Fraction


def _frames(container: Any, stream: Any, file: Source, *, trim: bool) -> Iterator[_Frame]:
    """The frames of a track; with ``trim`` the last one ends where its packet does, although FFmpeg returns it whole."""
    held: Any = None
    end = None
    stop = 0
    damage = PacketDamage()
    timed, contiguous = container.format.name in _TIMED, container.format.name in _CONTIGUOUS
    try:
        for packet in container.demux(stream):
            if timed and end is not None and packet.pts is not None:
                damage.add_gap((packet.pts - end) * packet.time_base)
            if packet.pts is not None and packet.duration:
                end = packet.pts + packet.duration
            lacking = lacks_bytes(packet)
            try:
                frames = [] if lacking else packet.decode()
            except av.InvalidDataError:
                damage.unreadable += 1
                continue
            if packet.size:  # the last one, which ends the stream, has no content
                dropped = contiguous and packet.pos is not None and 0 < stop < packet.pos
                damage.add_packets(incomplete=lacking or dropped or packet.is_corrupt)
            for frame in frames:
                if held is not None:
                    yield _frame(held)
                held = frame
                damage.seconds += Fraction(frame.samples, frame.sample_rate)
            if packet.size and packet.pos is not None:
                stop = packet.pos + packet.size
    except (av.FFmpegError, OSError) as error:
        _raise_if_unreadable(error)
        damage.unreadable += 1
    if contiguous and 0 < stop < file_size(file):
        damage.unreadable += 1
    if damage.unreadable and (not stop or not is_padding(file, stop, file_size(file))):
        damage.add_packets()
    if held is not None:
        last = _frame(held)
        if trim and damage.start is None and end is not None and held.pts is not None:
            kept = round((end - held.pts) * stream.time_base * last.rate)
            if held.samples - kept >= stream.time_base * last.rate:  # a coarser time scale does not tell single samples
                last = last._replace(audio=last.audio[:, : max(0, kept)])
        yield last
    if damage.start is not None:
        raise damage.error()


def _frame(frame: Any) -> _Frame:
    return _Frame(frame.sample_rate, _to_float(frame), (frame.pts or 0) * frame.time_base)


def _conformed(frames: Iterator[_Frame], rate: int, channels: int) -> Iterator[Audio]:
    """Frames of another format, which some broadcasts have, at the sample rate and channel count of the first one."""
    for (its_rate, its_channels), group in groupby(frames, lambda frame: (frame.rate, len(frame.audio))):
        audio = (frame.audio for frame in group)
        yield from conform(audio, rate=its_rate, new_rate=rate, channels=its_channels, new_channels=channels)


def _raise_if_unreadable(error: Exception) -> None:
    """Raises errors of the disk; EINVAL comes from a damaged file that makes FFmpeg seek to an impossible position."""
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError) and error.errno != errno.EINVAL:
        raise error


def _declared(container: Any, stream: Any, rate: int, timeline: Timeline | None, file: Source) -> int | None:
    if timeline is not None and timeline.used is not None:
        return round(timeline.used * rate)
    kind = container.format.name.split(",")[0]
    if kind not in _EXACT and not (kind in _EXACT_ALONE and len(container.streams) == 1):
        return None
    if kind == "matroska" and not declares_duration(file):
        return None
    if kind == "caf" and stream.codec_context.name.startswith("pcm_"):
        return None  # FFmpeg counts what follows the samples too; the file's chunks tell where they end
    if stream.duration is not None and stream.duration > 0:
        return round(float(stream.duration * stream.time_base) * rate)
    if container.duration and len(container.streams) == 1:  # in a video the picture may be longer than the audio
        return round(float(container.duration - max(0, container.start_time or 0)) * rate / av.time_base)
    return None


def _tolerance(stream: Any, rate: int) -> int:
    """How many samples may be missing: of lossless encodings those that the container's times do not tell apart."""
    codec = stream.codec_context.codec
    if not codec.lossless or codec.name == "dca":
        return LOSSY_TOLERANCE_SAMPLES
    step = float(rate * stream.time_base)
    return 2 * math.ceil(step)


def _to_float(frame: Any) -> Audio:
    """A frame's samples as float32 [channels, n], full scale 1."""
    if frame.format.name == "s64":
        array = np.frombuffer(frame.planes[0], np.int64)[None, : frame.samples * frame.layout.nb_channels]
    else:
        array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    samples: Audio = array.astype(np.float32)
    if kind == "u8":
        samples -= 128
    return samples / np.float32(_SCALE[kind]) if kind in _SCALE else samples
