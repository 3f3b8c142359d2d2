"""Files that others were joined to, as ``cat`` does it: decoders end with the first one, or play the head of the next."""

from __future__ import annotations

import re

from rave_dist.audio.io.byte_view import Source

_LONGEST = 32
_HEADS = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64).{4}(?:WAVE|AVI )|FORM.{4}(?:AIF[FC]|8SVX|16SV)|riff.{20}wave|caff\0[\1\2]"
    rb"|\.snd\0\0|dns\..{2}\0\0|NIST_1A\n|2BIT|ALawSoundFile\*\*\0|Creative Voice File\x1a|fLaC[\0\x80]|\0\0..ftyp",
    re.DOTALL,
)


def begins_file(file: Source, place: int) -> bool:
    """Whether bytes are the head of a recording.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(place)
    return _HEADS.match(file.read(_LONGEST)) is not None
