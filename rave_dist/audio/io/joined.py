"""What follows a recording in its file: others that were joined to it, as ``cat`` does it, or padding.

Decoders end with the first recording, or play the head of the next one.
"""

from __future__ import annotations

import re

from rave_dist.audio.io.byte_view import Source

_LONGEST = 32
_SCAN_BYTES = 1 << 20
_PADDING_BYTES = 1 << 20
_MAGIC_BYTES = 4
_INITIAL = b"".join(re.escape(bytes([flags])) for flags in range(256) if flags & 8)  # the first block of several channels
_HEADS = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64).{4}(?:WAVE|AVI )|FORM.{4}(?:AIF[FC]|8SVX|16SV)|riff.{20}wave|caff\0[\1\2]"
    rb"|\.snd\0\0|dns\..{2}\0\0|NIST_1A\n|2BIT|ALawSoundFile\*\*\0|Creative Voice File\x1a|fLaC[\0\x80]\0\0\x22|\0\0..ftyp"
    rb"|\x01\x04[ -~]{17}|PVF1\n\d|\x64\xa3.\0.{4}.\0\0\0|\0.\xa3\x64.{4}\0\0\0| paf\0{4}|fap \0{4}|Extended Instrument: "
    rb"|.{20}samplerate\0|MATLAB 5|\xf0\x7e.\x01|\x1aE\xdf\xa3(?:[\x80-\xff]|\x01\0{6}.)B[\x82-\xf7]|0&\xb2u\x8ef\xcf\x11"
    rb"|FLV\x01|TTA1|\.RMF\0\0|nut/multimedia|STRM.{4}\0[\0\x01]\0\x10|\xb7\xd8\0 7I\xda\x11"
    rb"|wvpk.{4}.\x04.{6}\0{4}.{5}[" + _INITIAL + rb"]",
    re.DOTALL,
)


def begins_file(file: Source, place: int) -> bool:
    """Whether bytes are the head of a recording.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(place)
    return _HEADS.match(file.read(_LONGEST)) is not None


def next_file(file: Source, start: int, stop: int | None, end: int) -> int | None:
    """Where another recording begins behind the first one, or None.

    Where neither it nor padding lies at the declared end of the first one, it is searched for: the first one may be cut, or
    its header wrong.

    Args:
        file: the file.
        start: of the first recording.
        stop: its declared end, or None where nothing declares it.
        end: of the file.

    Raises:
        OSError: the file cannot be read.
    """
    if stop is not None and stop <= end:
        if begins_file(file, stop):
            return stop
        if is_padding(file, stop, end):
            return None
    return find_file(file, start, range(start + 1, end))


def find_file(file: Source, first: int, places: range) -> int | None:
    """The first of some places where a recording begins of the same kind as the one at ``first``, or None.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(first)
    head = file.read(2 * _MAGIC_BYTES)
    at = _MAGIC_BYTES if head.endswith(b"ftyp") else 0
    magic = head[at : at + _MAGIC_BYTES]
    place = places.start
    while place < places.stop and any(magic):
        file.seek(place + at)
        data = file.read(_SCAN_BYTES)
        found = data.find(magic)
        while found >= 0:
            if place + found in places and begins_file(file, place + found):
                return place + found
            found = data.find(magic, found + 1)
        place += max(1, len(data) - _MAGIC_BYTES + 1)
    return None


def is_padding(file: Source, start: int, stop: int) -> bool:
    """Whether nothing but zeros lies between two places, judged by the first and the last MiB.

    Raises:
        OSError: the file cannot be read.
    """
    for place in dict.fromkeys((start, max(start, stop - _PADDING_BYTES))):
        file.seek(place)
        if any(file.read(max(0, min(_PADDING_BYTES, stop - place)))):
            return False
    return True
