"""How WAV, RF64, Wave64, AIFF, 8SVX and CAF write their chunks, and the names of chunks that are no sound."""

from __future__ import annotations

from rave_dist.audio.io.chunks import Dialect


def never_closed(size: int) -> bool:
    """Whether a size is what programs write before they know it: FFmpeg all ones, arecord about 2 GiB, sox slightly less."""
    return 2**32 - 2**16 <= size < 2**32 or min(abs(size - 2**31), abs(size - 0x7F000000)) <= 4096 or size >= 2**62


_RIFF_NAMES = (
    b"fmt |fact|LIST|INFO|JUNK|junk|PAD |FLLR|filr|bext|iXML|axml|chna|cart|cue |plst|ltxt|smpl|inst|acid|strc|id3 |ID3 |PEAK|"
    b"levl|link|umid|minf|elm1|regn|ovwf|DISP|_PMX|aXML|SyLp|Cr8r|SAUR|MARK|Fake|DGDA|ds64|afsp|tlst|bwfx|LGWV|ResU|wavl|slnt|ubxt|guan|wamd"
)
RIFF = Dialect(
    name_bytes=4,
    size_format="<I",
    counts_header=False,
    align=2,
    sound=b"data",
    others=frozenset(_RIFF_NAMES.split(b"|")),
    preamble=0,
    placeholder=never_closed,
)
RIFX = Dialect(**{**RIFF.__dict__, "size_format": ">I"})
AIFF = Dialect(
    name_bytes=4,
    size_format=">I",
    counts_header=False,
    align=2,
    sound=b"SSND",
    others=frozenset(
        b"COMM|FVER|MARK|INST|COMT|NAME|AUTH|(c) |ANNO|AESD|MIDI|APPL|ID3 |CHAN|PEAK|basc|trns|cate|SAXL|bext".split(b"|")
    ),
    preamble=8,
    placeholder=never_closed,
)
SVX = Dialect(**{**AIFF.__dict__, "sound": b"BODY", "others": AIFF.others | {b"VHDR", b"CHAN"}, "preamble": 0})
CAF = Dialect(
    name_bytes=4,
    size_format=">q",
    counts_header=False,
    align=1,
    sound=b"data",
    others=frozenset(b"desc|pakt|kuki|chan|info|strg|mark|regn|inst|midi|ovvw|peak|edct|umid|uuid|free".split(b"|")),
    preamble=4,
    placeholder=never_closed,
)
_WAVE_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
W64 = Dialect(
    name_bytes=16,
    size_format="<Q",
    counts_header=True,
    align=8,
    sound=b"data" + _WAVE_GUID,
    others=frozenset(
        [name + _WAVE_GUID for name in (b"fmt ", b"fact", b"levl", b"JUNK", b"junk", b"bext", b"cue ")]
        + [b"list" + bytes.fromhex("2f91cf11a5d628db04c10000")]
        + [bytes.fromhex(guid) for guid in ("5662f7ab2d39d21186c700c04f8edb8a", "bc945f925a52d21186dc00c04f8edb8a")]
    ),
    preamble=0,
    placeholder=never_closed,
)
