"""Decoders of extensions, by the suffix of a file's name; libsndfile and FFmpeg open everything else by its content."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

from rave_dist.audio.io.open_file import OpenFile
from rave_dist.extensions import Registry

DecoderOpener = Callable[[Path], AbstractContextManager[OpenFile]]
"""Opens a file; raises `AudioError` for a damaged one and `OSError` for one that cannot be read."""

DECODERS: Registry[DecoderOpener] = Registry("decoder")

# No ".ts": here it is more often TorchScript than an MPEG transport stream.
_BUILTIN = re.compile(
    r"\.(3gp|aac|ac3|aifc?|aiff|amr|ape|asf|au|avi|bwf|caf|dsf|flac|flv|m4[abv]|mk[av]|mov|mp[234c]|mpe?g|mts|og[agv]|opus"
    r"|rf64|snd|tta|voc|w64|wave?|webm|wm[av]|wv)",
    re.IGNORECASE,
)


def is_builtin(path: PurePath) -> bool:
    """Whether a file's suffix is one of recordings that libsndfile or FFmpeg open."""
    return _BUILTIN.fullmatch(path.suffix) is not None


def decoder_for(path: PurePath) -> DecoderOpener | None:
    """The decoder that an extension registered for a file's suffix, lower case and without its dot."""
    return DECODERS.get(path.suffix.lower().removeprefix("."))
