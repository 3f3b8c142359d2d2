"""Writing audio files: FLAC or WAV, 16 or 24 bits, to a temporary file that is renamed when it is complete."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.storage.atomic import replacing_alone

Format = Literal["flac", "wav"]
Subtype = Literal["PCM_16", "PCM_24"]

FLAC_MAX_CHANNELS = 8
FLAC_MAX_SAMPLE_RATE = 655_350
_FLAC_ANY_RATE = 65_535  # above it, FLAC's frame headers count in tens of Hz (RFC 9639, 9.1.2)
_WAV_MAX_BYTES = 2**32 - 2**16  # a RIFF chunk counts its bytes in 32 bits; the rest is for headers

# Encodings of more than 16 bits, and lossless encodings that may have them, by their names in libsndfile or FFmpeg.
_WIDE = re.compile("24|32|64|float|double|alac|wavpack|tta|ape|mlp|truehd|lossless|dsd", re.IGNORECASE)


def subtype_for(source_subtype: str) -> Subtype:
    """The output width for an encoding: 16 bits for 16-bit and lossy sources, otherwise 24."""
    return "PCM_24" if _WIDE.search(source_subtype) else "PCM_16"


def read_comment(path: Path | str) -> str:
    """The comment tag of a file; empty for one without, and for one that is not a sound file."""
    try:
        with soundfile.SoundFile(path) as file:
            return str(file.comment)
    except soundfile.SoundFileError:
        return ""


class AudioWriter:
    """Writes float blocks to a FLAC or WAV file; a context manager.

    The file appears under its name, complete, when the context closes without an exception; after an exception nothing is
    left, and what a killed process left of the same file is replaced. Samples are rounded to the nearest multiple of 2^-15 or
    2^-23 and clipped at full scale.

    Args:
        path: of the file; its folder is created.
        sample_rate: in Hz.
        channels: number of channels of every block.
        file_format: ``flac``, or ``wav`` (RF64 where ``expected_samples`` need more than 4 GiB).
        subtype: ``PCM_16`` or ``PCM_24``.
        comment: written to the file's comment tag.
        expected_samples: per channel, if known.

    Raises:
        AudioError: FLAC does not support the channel count or the sample rate, a WAV file would exceed 4 GiB, or nothing was
            written.
        StoreError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        sample_rate: int,
        channels: int,
        file_format: Format = "flac",
        subtype: Subtype = "PCM_24",
        comment: str = "",
        expected_samples: int | None = None,
    ) -> None:
        check_writable_as(file_format, sample_rate=sample_rate, channels=channels, where=str(path))
        self.path = Path(path)
        self._channels = channels
        self._bits = 16 if subtype == "PCM_16" else 24
        self._bytes_per_sample = channels * self._bits // 8
        large = file_format == "wav" and (expected_samples or 0) * self._bytes_per_sample > _WAV_MAX_BYTES
        self._container = "FLAC" if file_format == "flac" else "RF64" if large else "WAV"
        self._options = {"samplerate": sample_rate, "channels": channels, "subtype": subtype, "format": self._container}
        self._comment = comment
        self._stack = ExitStack()
        self._file: soundfile.SoundFile
        self._sink: _Sink
        self.samples = 0

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                self._sink = _Sink(stack.enter_context(replacing_alone(self.path)))
                self._file = soundfile.SoundFile(self._sink, "w", **self._options)
                if self._comment:
                    self._file.comment = self._comment
                stack.push(self._close)
                self._stack = stack.pop_all()
        except OSError as error:
            raise from_os_error(error, where=str(self.path)) from error
        return self

    def write(self, block: NDArray[np.float32]) -> None:
        """Appends a block [channels, samples], full scale 1."""
        if block.shape[0] != self._channels:
            raise ValueError(f"a block of {block.shape[0]} channels for a file of {self._channels}")
        self.samples += block.shape[1]
        if self._container == "WAV" and self.samples * self._bytes_per_sample > _WAV_MAX_BYTES:
            raise AudioError("longer than a WAV file can be (4 GiB)", where=str(self.path), fix="write FLAC instead")
        scale = 2.0 ** (self._bits - 1)
        steps = np.clip(np.rint(block.T.astype(np.float64) * scale), -scale, scale - 1).astype(np.int32)
        self._file.write(np.ascontiguousarray(steps << (32 - self._bits)))
        self._sink.check(self.path)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        except OSError as reason:
            if isinstance(reason, StoreError):
                raise
            raise from_os_error(reason, where=str(self.path)) from reason

    def _close(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._sink.sync()
            self._sink.check(self.path)
            if not self.samples:
                raise AudioError("there are no samples to write", where=str(self.path))


class _Sink:
    """The file that libsndfile writes to.

    libsndfile cannot pass on errors of the system, so the first one is kept for `check`; further bytes, which would end in
    a file that is discarded, are ignored.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray) -> int:
        return self._file.readinto(buffer)

    def sync(self) -> None:
        try:
            os.fsync(self._file.fileno())  # a full disk may be reported only here
        except OSError as error:
            self._error = self._error or error

    def check(self, path: Path) -> None:
        if self._error is not None:
            raise from_os_error(self._error, where=str(path)) from self._error


def check_writable_as(file_format: Format, *, sample_rate: int, channels: int, where: str = "") -> None:
    """Checks that a format supports a sample rate and a channel count.

    Raises:
        AudioError: in FLAC, more than 8 channels or 655,350 Hz, or a rate above 65,535 Hz that is not a multiple of 10 Hz.
    """
    reason = flac_refusal(sample_rate=sample_rate, channels=channels) if file_format == "flac" else None
    if reason:
        raise AudioError(reason, where=where, fix="write WAV, or choose another sample rate or fewer channels")


def flac_refusal(*, sample_rate: int, channels: int) -> str | None:
    """Why FLAC cannot hold a sample rate or a channel count; None if it can."""
    if channels > FLAC_MAX_CHANNELS:
        return f"FLAC holds at most {FLAC_MAX_CHANNELS} channels, not {channels}"
    if sample_rate > FLAC_MAX_SAMPLE_RATE:
        return f"FLAC holds at most {FLAC_MAX_SAMPLE_RATE} Hz, not {sample_rate}"
    if sample_rate > _FLAC_ANY_RATE and sample_rate % 10:
        return f"FLAC holds sample rates above {_FLAC_ANY_RATE} Hz in steps of 10 Hz, not {sample_rate} Hz"
    return None
