"""Writing audio files: FLAC or WAV, 16 or 24 bits, to a temporary file that is renamed when it is complete."""

from __future__ import annotations

import re
import struct
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Literal, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from rave_dist.audio.io.gapped_file import GappedFile
from rave_dist.audio.metadata.flac import PADDING, STREAMINFO_END
from rave_dist.audio.metadata.record import Metadata
from rave_dist.audio.metadata.write import flac_blocks, wav_chunks, with_vendor
from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.storage.atomic import replacing_alone

Format = Literal["flac", "wav"]
Subtype = Literal["PCM_16", "PCM_24"]

FLAC_MAX_CHANNELS = 8
FLAC_MAX_SAMPLE_RATE = 655_350
_FLAC_ANY_RATE = 65_535  # above it, FLAC's frame headers count in tens of Hz (RFC 9639, 9.1.2)
_WAV_MAX_BYTES = 2**32 - 2**16  # a RIFF chunk counts its bytes in 32 bits; the rest is for headers
# Where metadata stand: behind the chunk "fmt " that libsndfile writes, or behind the block STREAMINFO.
_METADATA_AT = {"WAV": 36, "RF64": 96, "FLAC": STREAMINFO_END}
_SIZE_AT = {"WAV": (4, "<I"), "RF64": (20, "<Q")}  # of the whole file
_WAV_NAMES = {"wav", "wave", "wavex", "bwf", "rf64", "bw64", "w64"}

# Encodings of more than 16 bits, and lossless encodings that may have them, by their names in libsndfile or FFmpeg.
_WIDE = re.compile("24|32|64|float|double|alac|wavpack|tta|ape|mlp|truehd|lossless|dsd", re.IGNORECASE)


def subtype_for(source_subtype: str) -> Subtype:
    """The output width for an encoding: 16 bits for 16-bit and lossy sources, otherwise 24."""
    return "PCM_24" if _WIDE.search(source_subtype) else "PCM_16"


def output_format(source: str) -> Format:
    """The format that keeps a source's container where it can be written: WAV for its family, otherwise FLAC.

    Args:
        source: the name of a file, or a format as `OpenFile` has it.
    """
    kind = (PurePosixPath(source).suffix or source).lower().removeprefix(".")
    return "wav" if kind in _WAV_NAMES else "flac"


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
        metadata: stands in front of the samples.
        expected_samples: per channel, if known; FLAC's cue sheet needs it.

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
        metadata: Metadata | None = None,
        expected_samples: int | None = None,
    ) -> None:
        check_writable_as(file_format, sample_rate=sample_rate, channels=channels, where=str(path))
        self.path = Path(path)
        self._channels = channels
        self._bits = 16 if subtype == "PCM_16" else 24
        self._bytes_per_sample = channels * self._bits // 8
        self._metadata, self._expected = metadata, expected_samples
        self._header = b"" if metadata is None else _header(file_format, metadata, sample_rate, expected_samples)
        self._most_bytes = _WAV_MAX_BYTES - len(self._header)
        large = file_format == "wav" and (expected_samples or 0) * self._bytes_per_sample > self._most_bytes
        self._container = "FLAC" if file_format == "flac" else "RF64" if large else "WAV"
        self._options = {"samplerate": sample_rate, "channels": channels, "subtype": subtype, "format": self._container}
        self._stack = ExitStack()
        self._file: soundfile.SoundFile
        self._sink: GappedFile
        self.samples = 0

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                start = _METADATA_AT[self._container]
                gap = range(start, start + len(self._header))
                self._sink = GappedFile(stack.enter_context(replacing_alone(self.path)), gap)
                self._file = soundfile.SoundFile(self._sink, "w", **self._options)
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
        if self._container == "WAV" and self.samples * self._bytes_per_sample > self._most_bytes:
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
            self._insert_metadata()
            self._sink.sync()
            self._sink.check(self.path)
            if not self.samples:
                raise AudioError("there are no samples to write", where=str(self.path))

    def _insert_metadata(self) -> None:
        """Fills the gap that libsndfile's header left, and corrects the header."""
        self._sink.check(self.path)
        if self._metadata is None or not self.samples:
            return
        if self._container == "FLAC":
            self._header = with_vendor(self._metadata, self._expected, self._replace_comments())
        else:
            place, form = _SIZE_AT[self._container]
            size = struct.unpack(form, self._sink.read_at(place, struct.calcsize(form)))[0] + len(self._header)
            self._sink.write_at(place, struct.pack(form, size))
        self._sink.fill(self._header)

    def _replace_comments(self) -> bytes:
        """Makes padding of libFLAC's own block of comments, since a file may have only one; returns the name of the encoder."""
        kind, *size = self._sink.read_at(STREAMINFO_END, 4)
        length = int.from_bytes(bytes(size), "big")
        content = self._sink.read_at(STREAMINFO_END + 4, length)
        self._sink.write_at(STREAMINFO_END, bytes([PADDING | kind & 0x80]))
        self._sink.write_at(STREAMINFO_END + 4, bytes(length))
        return content[4 : 4 + int.from_bytes(content[:4], "little")]


def _header(file_format: Format, metadata: Metadata, sample_rate: int, samples: int | None) -> bytes:
    return flac_blocks(metadata, samples) if file_format == "flac" else wav_chunks(metadata, sample_rate)


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
