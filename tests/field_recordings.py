"""Field recordings with the metadata of recorders, written byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

AUDIOMOTH = (
    "Recorded at 21:17:30 03/05/2024 (UTC+2) by AudioMoth 24F319055FDF2F5B at medium gain while battery was 4.2V and "
    "temperature was 17.5C."
)
GUANO = (
    "GUANO|Version:  1.0\nMake: Wildlife Acoustics, Inc.\nModel: Song Meter Mini Bat\nTimestamp: 2024-05-03T21:17:30+02:00\n"
    "Loc Position: 52.520008 13.404954\nLoc Elevation: 34.0\nSamplerate: 48000\nLength: 2.000000\n"
    "Note: Zwergfledermäuse\\nam Teich\n"
    'Species Manual ID: Pippip\nUser|MD5: 0123456789abcdef\nWA|Song Meter|Audio settings: [{"rate": 48000}]\n'
)
IXML = """<?xml version="1.0" encoding="UTF-8"?>
<BWFXML><IXML_VERSION>1.61</IXML_VERSION><PROJECT>Flüsse</PROJECT><SCENE>7</SCENE><TAKE>3</TAKE><TAPE>240503</TAPE>
<NOTE>Wind from the left</NOTE><FILE_UID>UID-OF-THE-RECORDING</FILE_UID>
<SPEED><FILE_SAMPLE_RATE>48000</FILE_SAMPLE_RATE><AUDIO_BIT_DEPTH>24</AUDIO_BIT_DEPTH>
<TIMESTAMP_SAMPLE_RATE>48000</TIMESTAMP_SAMPLE_RATE>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>1</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>48000</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO></SPEED>
<TRACK_LIST><TRACK_COUNT>2</TRACK_COUNT><TRACK><CHANNEL_INDEX>1</CHANNEL_INDEX><NAME>Mitte</NAME></TRACK></TRACK_LIST>
<BEXT><BWF_ORIGINATOR>Recorder</BWF_ORIGINATOR></BEXT></BWFXML>"""

SINCE_MIDNIGHT = 76_650  # s: 21:17:30


def chunk(name: bytes, content: bytes, *, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (padded and len(content) % 2)


def info(**texts: str | bytes) -> bytes:
    parts = [(key, text if isinstance(text, bytes) else text.encode()) for key, text in texts.items()]
    return chunk(b"LIST", b"INFO" + b"".join(chunk(key.encode(), text + b"\0") for key, text in parts))


def bext(
    rate: int = 48000, *, umid: bytes = b"UMID-OF-THE-RECORDING", description: bytes = b"sUBITS=none\r\nsSCENE=7"
) -> bytes:
    reference = SINCE_MIDNIGHT * rate
    head = description.ljust(256, b"\0") + b"Sound Devices 702".ljust(32, b"\0") + b"USSDVI70212345678".ljust(32, b"\0")
    head += b"2024-05-03" + b"21:17:30" + struct.pack("<IIH", reference & 2**32 - 1, reference >> 32, 2)
    loudness = struct.pack("<5h", -2300, 500, -100, -2000, -2100)
    return chunk(b"bext", head + umid.ljust(64, b"\0") + loudness + bytes(180) + b"A=PCM,F=48000,W=24,M=stereo,T=702\r\n")


def cue(*points: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack("<II4sIII", number, place, b"data", 0, 0, place) for number, place in points)
    return chunk(b"cue ", struct.pack("<I", len(points)) + body)


def adtl(*, labels: dict[int, str], notes: dict[int, str] | None = None, regions: dict[int, int] | None = None) -> bytes:
    parts = [chunk(b"labl", struct.pack("<I", key) + text.encode() + b"\0") for key, text in labels.items()]
    parts += [chunk(b"note", struct.pack("<I", key) + text.encode() + b"\0") for key, text in (notes or {}).items()]
    parts += [chunk(b"ltxt", struct.pack("<II4s4H", key, size, b"rgn ", 0, 0, 0, 0)) for key, size in (regions or {}).items()]
    return chunk(b"LIST", b"adtl" + b"".join(parts))


def smpl(first: int, last: int, *, rate: int = 48000) -> bytes:
    return chunk(b"smpl", struct.pack("<9I6I", 0, 0, 10**9 // rate, 67, 0, 0, 0, 1, 0, 1, 1, first, last, 0, 4))


def wamd(*, padded: bool = True) -> bytes:
    fields = ((0, struct.pack("<H", 1)), (1, b"SM4BAT-FS"), (2, b"S4U01234"), (5, b"2024-05-03 21:17:30+02:00"))
    fields += ((6, b"WGS84,52.520008,N,13.404954,E"), (8, b"Kaleidoscope"), (10, "am Teich, Südufer".encode()))
    fields += ((0x0D, b"voice"), (0x10, bytes(12)), (0xFFFF, bytes(3)))
    content = b"".join(struct.pack("<HI", number, len(data)) + data for number, data in fields)
    assert len(content) % 2
    return chunk(b"wamd", content, padded=padded)


def tone(samples: int, channels: int) -> np.ndarray:
    """Integers of 16 bits, [samples, channels]."""
    return np.round(8000 * np.sin(np.arange(samples)[:, None] * (0.02 + 0.01 * np.arange(channels)))).astype("<i2")


def wav(
    path: Path, *before: bytes, after: bytes = b"", rate: int = 48000, channels: int = 2, bits: int = 24, samples: int = 96_000
) -> Path:
    sound = tone(samples, channels).astype("<i4") << (bits - 16)
    data = sound.astype("<i4").tobytes() if bits == 32 else sound.view("u1").reshape(-1, 4)[:, : bits // 8].tobytes()
    width = channels * bits // 8
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, bits))
    body = b"WAVE" + form + b"".join(before) + chunk(b"data", data) + after
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def everything(path: Path, *, rate: int = 48000, padded: bool = False) -> Path:
    """Two seconds, stereo, 24 bits, with all chunks that field recorders write; Song Meters leave out the padding of wamd."""
    return wav(
        path,
        bext(rate),
        chunk(b"iXML", IXML.encode()),
        info(INAM="Teich bei Nacht", IART="Anna Größe", ICMT=AUDIOMOTH, ICOP="© 2024 Anna Größe, CC BY 4.0", ISFT="Reaper"),
        chunk(b"guan", GUANO.encode()),
        wamd(padded=padded),
        after=cue((1, 48_000), (2, 24_000), (3, 64_000))
        + adtl(labels={1: "Ruf — 鳥", 2: "Schritte"}, notes={1: "sehr leise"}, regions={3: 16_000})
        + smpl(16_000, 79_999),
        rate=rate,
    )


def aiff(path: Path, *, rate: int = 48000, samples: int = 9600) -> Path:
    """Mono, 16 bits, with texts, markers and a loop between them."""

    def part(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(">I", len(content)) + content + b"\0" * (len(content) % 2)

    def marker(number: int, place: int, name: bytes) -> bytes:
        return struct.pack(">HI", number, place) + bytes([len(name)]) + name + b"\0" * ((len(name) + 1) % 2)

    extended = struct.pack(">HQ", 16383 + rate.bit_length() - 1, rate << (64 - rate.bit_length()))
    body = part(b"COMM", struct.pack(">HIH", 1, samples, 16) + extended)
    body += part(b"NAME", b"Teich") + part(b"AUTH", "Anna Größe".encode()) + part(b"(c) ", b"CC0")
    body += part(b"MARK", struct.pack(">H", 2) + marker(1, 1600, b"Ruf") + marker(2, 4800, b"Ende!"))
    body += part(b"INST", struct.pack(">bbbbbbhHHHHHH", 67, 0, 0, 127, 1, 127, 0, 1, 1, 2, 0, 0, 0))
    body += part(b"SSND", bytes(8) + tone(samples, 1).byteswap().tobytes())
    path.write_bytes(b"FORM" + struct.pack(">I", 4 + len(body)) + b"AIFF" + body)
    return path
