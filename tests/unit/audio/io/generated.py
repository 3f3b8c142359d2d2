"""Recordings of every container and codec, written by FFmpeg's and sox's commands, which are not the decoders under test."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from rave_dist.audio.types import Audio
from tests.decoding import command


@dataclass(frozen=True)
class Kind:
    """A container with a codec, as FFmpeg's command writes it.

    Attributes:
        suffix: of the file's name.
        codec: FFmpeg's encoder.
        rates: which the encoder supports.
        channels: which the encoder supports.
        step: how far a decoded sample may be from what was encoded; None for lossy codecs.
        exact: whether the container keeps the number of samples; else the last codec frame may be longer.
        options: further options of the command.
    """

    suffix: str
    codec: str
    rates: tuple[int, ...] = (22050, 44100, 48000)
    channels: tuple[int, ...] = (1, 2)
    step: float | None = None
    exact: bool = True
    options: tuple[str, ...] = ()


def sound(samples: int, channels: int = 1, rate: int = 44100) -> Audio:
    """Tones with vibrato and clicks, a different one in each channel, [channels, samples], no louder than 0.7."""
    t = np.arange(samples) / rate
    tones = [0.4 * np.sin(2 * np.pi * (300 + 110 * c) * t + 8 * np.sin(6 * np.pi * t)) for c in range(channels)]
    audio = np.stack(tones)
    audio[:, 1000 :: max(1, rate // 3)] += 0.3
    return audio.astype(np.float32)


def pcm16(audio: Audio) -> bytes:
    """Interleaved 16-bit PCM."""
    return np.rint(np.clip(audio, -1, 32767 / 32768) * 32768).astype("<i2").T.tobytes()


def write(path: Path, audio: Audio, rate: int, codec: str, *options: str) -> Path:
    """Encodes [channels, samples]; options go before the output's name."""
    source = ("-f", "s16le", "-ar", str(rate), "-ac", str(len(audio)), "-i", "pipe:0")
    ffmpeg(*source, "-c:a", codec, "-strict", "-2", *options, str(path), data=pcm16(audio))
    return path


def write_kind(path: Path, audio: Audio, rate: int, kind: Kind) -> Path:
    """Encodes [channels, samples] to a file of a kind."""
    return write(path.with_suffix(kind.suffix), audio, rate, kind.codec, *kind.options)


def ffmpeg(*arguments: str, data: bytes = b"") -> bytes:
    """Runs FFmpeg's command; returns its standard output."""
    return run("ffmpeg", "-y", "-v", "error", *arguments, data=data)


def run(program: str, *arguments: str, data: bytes = b"") -> bytes:
    """Runs a command; returns its standard output."""
    done = subprocess.run([command(program), *arguments], input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr.decode()[-500:]}")
    return done.stdout


MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
KINDS = {
    "vorbis": Kind(".ogg", "libvorbis", rates=(8000, 22050, 44100, 48000)),
    "opus": Kind(".opus", "libopus", rates=(8000, 48000)),
    "ogg flac": Kind(".oga", "flac", step=2**-15),
    "ogg speex": Kind(".ogg", "libspeex", rates=(8000, 16000), exact=False, options=("-f", "ogg")),
    "mp3": Kind(".mp3", "libmp3lame", rates=MP3_RATES),
    "mp3 without xing": Kind(".mp3", "libmp3lame", rates=MP3_RATES, exact=False, options=("-write_xing", "0")),
    "mp2": Kind(".mp2", "mp2", exact=False),
    "adts": Kind(".aac", "aac", exact=False),
    "ac3": Kind(".ac3", "ac3", rates=(44100, 48000), channels=(1, 2, 6), exact=False),
    "eac3": Kind(".eac3", "eac3", rates=(44100, 48000), channels=(1, 2, 6), exact=False),
    "m4a": Kind(".m4a", "aac"),
    "mp4 fragments": Kind(
        ".mp4", "aac", exact=False, options=("-movflags", "frag_keyframe+empty_moov", "-frag_duration", "500000")
    ),
    "alac": Kind(".m4a", "alac", step=2**-15),
    "mov pcm": Kind(".mov", "pcm_s16le", step=2**-15),
    "mov aac": Kind(".mov", "aac"),
    "mka aac": Kind(".mka", "aac", exact=False),
    "mka opus": Kind(".mka", "libopus", rates=(48000,)),
    "mka vorbis": Kind(".mka", "libvorbis", exact=False),
    "mka flac": Kind(".mka", "flac", step=2**-15),
    "mka pcm": Kind(".mka", "pcm_s16le", step=2**-15),
    "mka mp3": Kind(".mka", "libmp3lame", exact=False),
    "webm opus": Kind(".webm", "libopus", rates=(48000,)),
    "webm vorbis": Kind(".webm", "libvorbis", exact=False),
    "avi pcm": Kind(".avi", "pcm_s16le", step=2**-15),
    "avi mp3": Kind(".avi", "libmp3lame", exact=False),
    "wma": Kind(".wma", "wmav2", exact=False),
    "flv": Kind(".flv", "libmp3lame", rates=(22050, 44100), exact=False),
    "mpegts": Kind(".mts", "aac", exact=False, options=("-f", "mpegts")),
    "wavpack": Kind(".wv", "wavpack", step=2**-15),
    "tta": Kind(".tta", "tta", step=2**-15),
    "wav ima": Kind(".wav", "adpcm_ima_wav", exact=False),
    "wav ms": Kind(".wav", "adpcm_ms", exact=False),
    "wav alaw": Kind(".wav", "pcm_alaw"),
    "wav mulaw": Kind(".wav", "pcm_mulaw"),
    "wav gsm": Kind(".wav", "libgsm_ms", rates=(8000,), channels=(1,), exact=False),
    "wav mp3": Kind(".wav", "libmp3lame", exact=False),
}
"""Compressed kinds, and PCM in containers that only FFmpeg reads."""


@cache
def encoders() -> frozenset[str]:
    """The encoders that FFmpeg's command has; some builds have none for GSM."""
    return frozenset(line.split()[1] for line in ffmpeg("-encoders").decode().splitlines() if len(line.split()) > 1)


def box(name: bytes, content: bytes) -> bytes:
    """A box of an MP4."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def replace_box(data: bytes, path: tuple[bytes, ...], new: bytes) -> bytes:
    """Replaces the first box with a path, such as (moov, trak, edts), by other bytes, and corrects the sizes around it."""
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == path[0]:
            inner = data[at + 8 : at + length]
            changed = new if len(path) == 1 else box(name, replace_box(inner, path[1:], new))
            return data[:at] + changed + data[at + length :]
        at += length
    raise LookupError(path)


def find_box(data: bytes, path: tuple[bytes, ...]) -> bytes:
    """The content of the first box with a path."""
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == path[0]:
            inner = data[at + 8 : at + length]
            return inner if len(path) == 1 else find_box(inner, path[1:])
        at += length
    raise LookupError(path)


def edit_list(*edits: tuple[int, int]) -> bytes:
    """An `edts` box: per edit its length in the movie's time scale, and its start in the track's (-1: nothing plays)."""
    entries = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    return box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + entries))


def ogg_pages(data: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    pages: list[bytes] = []
    at = 0
    while at < len(data):
        body = at + 27 + data[at + 26]
        end = body + sum(data[at + 27 : body])
        pages.append(data[at:end])
        at = end
    return pages
