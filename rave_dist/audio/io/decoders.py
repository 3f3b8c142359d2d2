"""Decoders of extensions, by the suffix of a file's name; libsndfile and FFmpeg open everything else by its content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

from rave_dist.audio.io.open_file import OpenFile
from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.extensions import Registry

DecoderOpener = Callable[[Path], AbstractContextManager[OpenFile]]
"""Opens a file; raises `AudioError` for a damaged one and `OSError` for one that cannot be read."""

DECODERS: Registry[DecoderOpener] = Registry("decoder")

_LIBSNDFILE = (
    "8svx aif aifc aiff au avr bwf caf flac iff mp1 mp2 mp3 nist oga ogg opus paf pvf rf64 sds sf snd sph svx voc w64 wav wave"
    " wve xi"
)
# No ".ts": here it is more often TorchScript than an MPEG transport stream.
_FFMPEG = (
    "3g2 3ga 3gp aa3 aac ac3 adts aea amr ape apl asf ast avi awb bonk dff dsf dss dts dtshd dv eac3 ec3 f4a f4b f4v flv ircam"
    " ivr m2a m2ts m4a m4b m4r m4v mac mka mkv mlp mov mp4 mpa mpc mpeg mpg mpp mts mxf nut ogm ogv ogx oma omg osq qcp qoa qt"
    " ra rka rm rmvb shn spx tak thd tta vob vqe vqf vql wa webm weba wma wmv wsd wtv wv xwma"
)

BUILTIN_EXTENSIONS = frozenset(f".{name}" for name in f"{_LIBSNDFILE} {_FFMPEG}".split())
"""The suffixes of recordings, and of videos, that libsndfile or FFmpeg open; lower case."""

UNSUPPORTED_EXTENSIONS = frozenset({".aax", ".ac4", ".m4p", ".rx2", ".sd2", ".wac"})
"""The suffixes of recordings that neither opens: encrypted, in two parts, or in a format that is not published."""


def is_builtin(path: PurePath | PartialCopy) -> bool:
    """Whether a file's suffix is one of recordings that libsndfile or FFmpeg open."""
    return path.suffix.lower() in BUILTIN_EXTENSIONS


def decoder_for(path: PurePath | PartialCopy) -> DecoderOpener | None:
    """The decoder that an extension registered for a file's suffix, lower case and without its dot."""
    return DECODERS.get(path.suffix.lower().removeprefix("."))
