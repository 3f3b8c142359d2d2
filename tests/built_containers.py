"""Containers written byte by byte, with whatever their headers are to claim: WAV, RF64, Wave64, AIFF, CAF, AU."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

Size = Callable[[int], int]
"""From the right size to the one in the header."""


def right(size: int) -> int:
    return size


@dataclass(frozen=True)
class Encoding:
    """How samples are stored: bytes per sample, and the numbers by which the containers name it (None: they cannot)."""

    name: str
    dtype: str
    width: int
    wav: int = 1
    aifc: bytes | None = None
    caf: tuple[bytes, int] | None = None
    au: int | None = None


ENCODINGS = {
    encoding.name: encoding
    for encoding in (
        Encoding("u8", "u1", 1),
        Encoding("s8", "i1", 1, wav=0, aifc=b"NONE", caf=(b"lpcm", 0), au=2),
        Encoding("s16", "i2", 2, aifc=b"NONE", caf=(b"lpcm", 0), au=3),
        Encoding("s24", "s24", 3, aifc=b"NONE", caf=(b"lpcm", 0), au=4),
        Encoding("s32", "i4", 4, aifc=b"NONE", caf=(b"lpcm", 0), au=5),
        Encoding("f32", "f4", 4, wav=3, aifc=b"fl32", caf=(b"lpcm", 1), au=6),
        Encoding("f64", "f8", 8, wav=3, aifc=b"fl64", caf=(b"lpcm", 1), au=7),
        Encoding("ulaw", "ulaw", 1, wav=7, aifc=b"ulaw", caf=(b"ulaw", 0), au=1),
        Encoding("alaw", "alaw", 1, wav=6, aifc=b"alaw", caf=(b"alaw", 0), au=27),
    )
}


@dataclass(frozen=True)
class Built:
    """A file to build.

    Attributes:
        container: a key of `CONTAINERS`.
        encoding: a key of `ENCODINGS`.
        rate: in Hz.
        payload: the sound, [samples, channels] as `make_payload` gives it.
        size: from the right size of the sound's chunk to the declared one.
        outer: from the right size of the container to the declared one.
        frames: from the right number of frames to the one that AIFF declares.
        parts: lengths of further chunks of sound, in samples; the first one has the rest.
        behind: chunks behind the sound.
        common_last: whether the description of an AIFF or RF64 file lies behind its sound.
    """

    container: str
    encoding: str
    rate: int
    payload: np.ndarray
    size: Size = right
    outer: Size = right
    frames: Size = right
    parts: tuple[int, ...] = ()
    behind: tuple[tuple[bytes, bytes], ...] = ()
    common_last: bool = False
    extra: dict[str, Size] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.payload.shape[1]

    def build(self) -> bytes:
        return CONTAINERS[self.container].write(self)

    def intact(self) -> Built:
        return replace(self, size=right, outer=right, frames=right, extra={})

    def pieces(self, order: str) -> list[bytes]:
        """The sound of each chunk."""
        ends = np.cumsum([len(self.payload) - sum(self.parts), *self.parts])
        starts = [0, *ends[:-1]]
        return [to_bytes(self.payload[a:b], self.encoding, order) for a, b in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Container:
    """How a container is built, and what it can hold."""

    write: Callable[[Built], bytes]
    order: str
    size_format: str
    unknown: int
    encodings: tuple[str, ...]
    suffix: str
    chunks: tuple[bytes, ...] = ()
    splits: bool = False


def make_payload(random: np.random.Generator, encoding: str, samples: int, channels: int) -> np.ndarray:
    """Random samples, as integers or floats."""
    shape = (samples, channels)
    if encoding in ("f32", "f64"):
        return random.standard_normal(shape) * random.choice([0.3, 4.0, 32768.0])
    bits = {"u8": 8, "s8": 8, "ulaw": 8, "alaw": 8, "s16": 16, "s24": 24, "s32": 32}[encoding]
    low = 0 if encoding in ("u8", "ulaw", "alaw") else -(2 ** (bits - 1))
    return random.integers(low, low + 2**bits, shape)


def expected(payload: np.ndarray, encoding: str) -> np.ndarray:
    """What a decoder gives, float32 [channels, samples]."""
    if encoding == "f32":
        return payload.T.astype(np.float32)
    if encoding == "f64":
        return payload.T.astype(np.float64).astype(np.float32)
    if encoding in ("ulaw", "alaw"):
        table = np.array([(_ulaw if encoding == "ulaw" else _alaw)(value) for value in range(256)])
        return (table[payload.T] / 2**15).astype(np.float32)
    scale = {"u8": 7, "s8": 7, "s16": 15, "s24": 23, "s32": 31}[encoding]
    offset = 128 if encoding == "u8" else 0
    return (payload.T - offset).astype(np.float32) / np.float32(2**scale)


def _ulaw(code: int) -> int:
    """G.711."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def _alaw(code: int) -> int:
    """G.711."""
    code ^= 0x55
    segment = (code & 0x70) >> 4
    magnitude = (code & 0x0F) << 4
    magnitude = magnitude + 8 if not segment else (magnitude + 0x108) << (segment - 1)
    return magnitude if code & 0x80 else -magnitude


def to_bytes(payload: np.ndarray, encoding: str, order: str) -> bytes:
    dtype = ENCODINGS[encoding].dtype
    if dtype == "s24":
        data = np.ascontiguousarray(payload.astype(f"{order}i4")).view(np.uint8).reshape(-1, 4)
        return data[:, :3].tobytes() if order == "<" else data[:, 1:].tobytes()
    return payload.astype("u1" if dtype in ("ulaw", "alaw") else f"{order}{dtype}").tobytes()


def chunk(name: bytes, data: bytes, size_format: str = "<I", size: Size = right, align: int = 2) -> bytes:
    """A chunk of RIFF, AIFF or CAF."""
    return name + struct.pack(size_format, size(len(data))) + data + bytes(-len(data) % align)


def guid_chunk(name: bytes, data: bytes, size: Size = right) -> bytes:
    """A chunk of Wave64."""
    suffix = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    return name + suffix + struct.pack("<Q", size(24 + len(data))) + data + bytes(-len(data) % 8)


def _fmt(built: Built, order: str) -> bytes:
    encoding = ENCODINGS[built.encoding]
    align = built.channels * encoding.width
    rates = (built.rate, built.rate * align & 0xFFFFFFFF)
    return struct.pack(f"{order}HHIIHH", encoding.wav, built.channels, *rates, align, 8 * encoding.width)


def _wav(built: Built, *, order: str = "<", magic: bytes = b"RIFF") -> bytes:
    form = f"{order}I"
    body = b"" if built.common_last else chunk(b"fmt ", _fmt(built, order), form)
    parts = built.pieces(order)
    body += chunk(b"data", parts[0], form, built.size)
    for part in parts[1:]:
        body += chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0", form) + chunk(b"data", part, form)
    body += b"".join(chunk(name, data, form) for name, data in built.behind)
    body += chunk(b"fmt ", _fmt(built, order), form) if built.common_last else b""
    return magic + struct.pack(form, built.outer(4 + len(body)) & 0xFFFFFFFF) + b"WAVE" + body


def _rf64(built: Built, magic: bytes) -> bytes:
    plain = _wav(replace(built, size=lambda size: 2**32 - 1))
    sound = len(built.pieces("<")[0])
    sizes = struct.pack("<QQQI", built.outer(len(plain) + 28), built.size(sound), len(built.payload), 0)
    head = b"" if "no_ds64" in built.extra else chunk(b"ds64", sizes)
    return magic + b"\xff" * 4 + b"WAVE" + head + plain[12:]


def _w64(built: Built) -> bytes:
    parts = built.pieces("<")
    body = guid_chunk(b"fmt ", _fmt(built, "<")) + guid_chunk(b"data", parts[0], built.size)
    body += b"".join(guid_chunk(b"data", part) for part in parts[1:])
    body += b"".join(guid_chunk(name, data) for name, data in built.behind)
    head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", built.outer(40 + len(body)))
    return head + b"wave" + bytes.fromhex("f3acd3118cd100c04f8edb8a") + body


def _extended(rate: int) -> bytes:
    """80-bit float."""
    exponent = math.frexp(rate)[1]
    return struct.pack(">HQ", 16382 + exponent, int(math.ldexp(rate, 64 - exponent)))


def _aiff(built: Built) -> bytes:
    encoding = ENCODINGS[built.encoding]
    assert encoding.aifc is not None
    bits = 16 if built.encoding in ("ulaw", "alaw") else 8 * encoding.width
    common = struct.pack(">HIH", built.channels, built.frames(len(built.payload)), bits) + _extended(built.rate)
    kind = b"AIFF" if encoding.aifc == b"NONE" else b"AIFC"
    head = chunk(b"COMM", common + (encoding.aifc + b"\0\0" if kind == b"AIFC" else b""), ">I")
    sound = chunk(b"SSND", bytes(8) + built.pieces(">")[0], ">I", built.size)
    behind = b"".join(chunk(name, data, ">I") for name, data in built.behind)
    body = (chunk(b"FVER", b"\xa2\x80\x51\x40", ">I") if kind == b"AIFC" else b"") + (
        sound + behind + head if built.common_last else head + sound + behind
    )
    return b"FORM" + struct.pack(">I", built.outer(4 + len(body)) & 0xFFFFFFFF) + kind + body


def _caf(built: Built) -> bytes:
    encoding = ENCODINGS[built.encoding]
    assert encoding.caf is not None
    width = encoding.width * built.channels
    description = struct.pack(">d4sIIIII", built.rate, *encoding.caf, width, 1, built.channels, 8 * encoding.width)
    data = b"data" + struct.pack(">q", built.size(4 + len(built.pieces(">")[0]))) + bytes(4) + built.pieces(">")[0]
    behind = b"".join(chunk(name, data, ">q", align=1) for name, data in built.behind)
    return b"caff\0\1\0\0" + chunk(b"desc", description, ">q", align=1) + data + behind


def _au(built: Built, order: str) -> bytes:
    sound = built.pieces(order)[0]
    fields = (28, built.size(len(sound)) & 0xFFFFFFFF, ENCODINGS[built.encoding].au, built.rate, built.channels)
    return (b".snd" if order == ">" else b"dns.") + struct.pack(f"{order}IIIII", *fields) + bytes(4) + sound


_ALL = tuple(name for name in ENCODINGS if name != "s8")
_SIGNED = tuple(name for name in ENCODINGS if name != "u8")
_RIFF_CHUNKS = (b"LIST", b"bext", b"iXML", b"cue ", b"id3 ", b"JUNK", b"qrst")
_BIG = 2**63 - 1

CONTAINERS = {
    "wav": Container(_wav, "<", "<I", 2**32 - 1, _ALL, "wav", _RIFF_CHUNKS, splits=True),
    "rifx": Container(
        lambda b: _wav(b, order=">", magic=b"RIFX"), ">", ">I", 2**32 - 1, _ALL, "wav", _RIFF_CHUNKS, splits=True
    ),
    "rf64": Container(lambda b: _rf64(b, b"RF64"), "<", "<Q", 2**64 - 1, _ALL, "wav", _RIFF_CHUNKS),
    "bw64": Container(lambda b: _rf64(b, b"BW64"), "<", "<Q", 2**64 - 1, _ALL, "wav", (b"axml", b"chna")),
    "w64": Container(_w64, "<", "<Q", _BIG, _ALL, "w64", (b"fact", b"bext", b"levl"), splits=True),
    "aiff": Container(_aiff, ">", ">I", 2**32 - 1, _SIGNED, "aiff", (b"NAME", b"(c) ", b"ANNO", b"APPL", b"ID3 ")),
    "caf": Container(_caf, ">", ">q", -1, _SIGNED, "caf", (b"info", b"uuid", b"free", b"strg")),
    "au": Container(lambda b: _au(b, ">"), ">", ">I", 2**32 - 1, _SIGNED, "au"),
    "au_little": Container(lambda b: _au(b, "<"), "<", "<I", 2**32 - 1, _SIGNED, "au"),
}
