"""Decoding in tests: ours, and that of the commands ffmpeg and sox; and tags that may lie around any file."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rave_dist.audio.io.open import open_audio
from rave_dist.errors import AudioError

ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 2000, 1, 0xA0000000) + bytes(8)
APE_TAG = APE + bytes(range(250)) * 7 + bytes(2000 - 32 - 1750) + APE[:20] + struct.pack("<I", 0x80000000) + bytes(8)
ID3V2 = b"ID3\x04\0\0" + bytes([0, 0, 8, 0]) + b"x" * 1024


def decode(path: Path, seconds: float = 0.05) -> tuple[np.ndarray, str | None, tuple[str, ...]]:
    """What can be read, in blocks of ``seconds``, the error after it, and the notes."""
    blocks: list[np.ndarray] = []
    try:
        with open_audio(path) as decoder:
            notes = decoder.notes
            channels = decoder.channels
            blocks.append(np.zeros((channels, 0), np.float32))
            blocks.extend(decoder.blocks(seconds))
    except AudioError as error:
        if not error.fix or error.where != str(path):
            raise
        if not blocks:
            return np.zeros((0, 0), np.float32), error.what, ()
        return np.concatenate(blocks, axis=1), error.what, notes
    return np.concatenate(blocks, axis=1), None, notes


def command(name: str) -> str:
    """The path of a command, ffmpeg or sox; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"the command {name} is missing: nothing compares the decoders with it (apt-get install {name})")
    return found


def by_ffmpeg(path: Path, channels: int) -> np.ndarray:
    run = [command("ffmpeg"), "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "f64le", "-c:a", "pcm_f64le", "-"]
    out = subprocess.run(run, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    return np.frombuffer(out, "<f8").reshape(-1, channels).T.astype(np.float32)


def by_sox(path: Path, channels: int) -> np.ndarray:
    run = [command("sox"), "-D", "-V1", str(path), "-t", "f64", "-L", "-"]
    out = subprocess.run(run, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    return np.frombuffer(out, "<f8").reshape(-1, channels).T.astype(np.float32)
