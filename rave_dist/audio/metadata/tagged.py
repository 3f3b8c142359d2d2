"""Text tags that FFmpeg reads: of MP3, M4A, Ogg, Opus, WMA, Matroska, CAF and further containers, and ID3 in chunks."""

from __future__ import annotations

import io
import struct
from contextlib import closing
from typing import BinaryIO

from rave_dist.audio.metadata.names import vorbis_name
from rave_dist.audio.metadata.text import MetadataError, clean

# A WAV file of four samples, of which FFmpeg reads the ID3 tag.
_FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
_SOUND = b"data" + struct.pack("<I", 8) + bytes(8)


def read_tags(source: BinaryIO) -> tuple[list[tuple[str, str]], list[str]]:
    """The tags of a container and of its default audio track, and remarks about pictures and chapters.

    Raises:
        MetadataError: FFmpeg cannot open it.
        OSError: the file cannot be read.
    """
    import av

    from rave_dist.audio.io.ffmpeg import open_container

    try:
        with closing(open_container(source)) as container:
            found: dict[str, str] = {}
            tracks = container.streams.audio
            chosen = next((track for track in tracks if track.disposition & av.stream.Disposition.default), *tracks[:1])
            for metadata in (container.metadata, *([chosen.metadata] if chosen is not None else [])):
                for key, text in metadata.items():
                    if (cleaned := clean(text)) and (key.lower(), cleaned) != ("language", "und"):
                        found.setdefault(vorbis_name(key), cleaned)
            remarks = []
            if any(stream.disposition & av.stream.Disposition.attached_pic for stream in container.streams):
                remarks.append("picture: pictures are not carried")
            if container.chapters():
                remarks.append("chapters: not supported")
            return list(found.items()), remarks
    except av.FFmpegError as error:
        raise MetadataError(f"FFmpeg cannot read it ({error.strerror})") from error


def read_id3(tag: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    """The tags of an ID3v2 tag.

    Raises:
        MetadataError: FFmpeg cannot read it.
    """
    if not tag.startswith(b"ID3"):
        raise MetadataError("it does not begin as an ID3v2 tag")
    chunk = b"ID3 " + struct.pack("<I", len(tag)) + tag + b"\0" * (len(tag) % 2)
    body = b"WAVE" + _FORMAT + chunk + _SOUND
    return read_tags(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body))
