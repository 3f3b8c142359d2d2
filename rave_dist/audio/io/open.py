"""Any recording as a stream of float32 blocks, decoded by libsndfile or else by FFmpeg.

Decoders shorten truncated files, skip over damage and return NaN without an error. Here all readable audio is yielded, and
then `AudioError` describes the damage, so that a strict caller can reject the file and a salvaging caller keep the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rave_dist.audio.io import libsndfile
from rave_dist.audio.io.byte_view import Piece
from rave_dist.audio.io.containers import examine
from rave_dist.audio.io.decoders import decoder_for, is_builtin
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.open_file import OpenFile
from rave_dist.audio.io.other_files import kind_of
from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.audio.io.parts import open_parts
from rave_dist.audio.io.snapshot import Snapshot
from rave_dist.audio.types import Audio
from rave_dist.errors import AudioError, StoreError, from_os_error

_RATES = (100, 3_072_000)
_MOST_CHANNELS = 256
_MOST_VALUES_PER_SECOND = 2**26  # 256 channels at 192 kHz have 49 million
_BLOCK_BYTES = 32 << 20
_DECODED_STREAMS = {"ac3", "dca"}  # which FFmpeg finds in WAV and Wave64 files
_FIX = "replace the file with an intact copy, or leave it out"


@dataclass(frozen=True)
class AudioInfo:
    """A file's header values; ``samples`` is None where they do not give the length."""

    sample_rate: int
    channels: int
    samples: int | None
    format: str


class Decoder:
    """An open recording.

    Attributes:
        sample_rate: in Hz.
        channels: as recorded.
        format: of the container, as libsndfile or FFmpeg names it.
        subtype: of the encoding.
        declared_samples: the length that the headers give, or None.
        notes: what a listener should know about an intact file: a wrong header, further tracks.
        is_cut: whether the file is known to end before its audio does.
    """

    def __init__(
        self,
        sound: OpenFile,
        *,
        declared_samples: int | None,
        cut: bool,
        damage: str | None,
        notes: tuple[str, ...],
        container: str | None,
        where: str,
        snapshot: Snapshot | PartialCopy,
    ) -> None:
        self.sample_rate = sound.sample_rate
        self.channels = sound.channels
        self.format = container or sound.format
        self.subtype = sound.subtype
        self.declared_samples = declared_samples
        self.notes = notes
        self._sound = sound
        self.is_cut = cut
        self._damage = damage
        self._where = where
        self._snapshot = snapshot

    def blocks(self, seconds: float = 10) -> Iterator[Audio]:
        """The recording from its start, in blocks, float32 [channels, n], full scale 1; can be iterated once.

        NaN and infinite samples are replaced by zero.

        Args:
            seconds: length of a block; the last one is shorter, and all are where one would exceed 32 MiB.

        Raises:
            AudioError: after the last readable block: the file is damaged, truncated, or has NaN or infinite samples.
            StoreError: the file could not be read further, or changed while it was read.
        """
        read = bad = 0
        first_bad = 0.0
        size = min(round(seconds * self.sample_rate), _BLOCK_BYTES // (4 * self.channels))
        try:
            for block in self._sound.read(max(1, size)):
                finite = np.isfinite(block)
                if not finite.all():
                    if not bad:
                        first_bad = (read + int(np.argmin(finite.all(axis=0)))) / self.sample_rate
                    bad += int(block.size - finite.sum())
                    block = np.where(finite, block, np.float32(0))
                read += block.shape[1]
                yield block
        except AudioError as error:
            self._snapshot.check()
            what = error.what if error.where else f"{error.what} after {self._seconds(read)}{self._of_declared(read)}"
            raise self._error(what) from error
        except StoreError:
            raise
        except OSError as error:
            raise from_os_error(error, where=self._where) from error
        self._snapshot.check()
        declared = self.declared_samples
        if declared is not None and read < declared - self._sound.tolerance:
            if declared - read < self.sample_rate // 100:
                raise self._error(f"truncated: the last {declared - read} of {declared} samples are missing")
            raise self._error(f"truncated: only {self._seconds(read)} of {self._seconds(declared)} can be read")
        if self._damage is not None:
            raise self._error(f"{self._damage} after {self._seconds(read)}")
        if self.is_cut:
            raise self._error(f"truncated: the file ends after {self._seconds(read)}, before its audio does")
        if bad:
            raise self._error(f"{bad} NaN or infinite samples, the first at {first_bad:.3f} s")

    def _of_declared(self, read: int) -> str:
        declared = self.declared_samples or 0
        return f" of {self._seconds(declared)}" if declared - read > self._sound.tolerance else ""

    def _seconds(self, samples: int) -> str:
        return f"{samples / self.sample_rate:.3f} s"

    def _error(self, what: str) -> AudioError:
        return AudioError(what, where=self._where, fix=_FIX)


@contextmanager
def open_audio(path: Path | str | PartialCopy) -> Iterator[Decoder]:
    """Opens a recording of any format.

    Raises:
        AudioError: empty, or not an audio file that libsndfile or FFmpeg can read.
        StoreError: the file does not exist or cannot be read.
    """
    if isinstance(path, str):
        path = Path(path)
    where = printable(path if isinstance(path, Path) else path.address)
    with ExitStack() as stack:
        held = None
        try:
            snapshot = Snapshot(path) if isinstance(path, Path) else path
            if snapshot.bytes == 0:
                raise AudioError("the file is empty")
            registered = None if is_builtin(path) else decoder_for(path)
            if registered is not None:
                sound = stack.enter_context(registered(path if isinstance(path, Path) else Path(path.complete())))
            else:
                held, parts = examine(path)
                pieces = None if held is None else held.pieces
                opened = open_parts(path, parts, _open_builtin) if parts is not None else _open_builtin(path, pieces)
                sound = stack.enter_context(opened)
            if isinstance(path, PartialCopy):
                path.check()
            if not (_RATES[0] <= sound.sample_rate <= _RATES[1] and 1 <= sound.channels <= _MOST_CHANNELS) or (
                sound.sample_rate * sound.channels > _MOST_VALUES_PER_SECOND
            ):
                raise AudioError(f"damaged: the header gives {sound.channels} channels at {sound.sample_rate} Hz")
        except AudioError as error:
            if isinstance(path, PartialCopy):
                path.check()
            what = "truncated, and none of it can be read" if held is not None and held.is_cut else error.what
            raise _refusal(path, what, where, error.fix) from error
        except StoreError:
            raise
        except OSError as error:
            raise from_os_error(error, where=where) from error
        yield Decoder(
            sound,
            declared_samples=sound.samples if held is None else _declared(sound, held),
            cut=held is not None and held.is_cut,
            damage=None if held is None else held.damage,
            notes=(*sound.notes, *(() if held is None else _notes(sound, held))),
            container=None if held is None else held.format,
            where=where,
            snapshot=snapshot,
        )


def _refusal(path: Path | PartialCopy, what: str, where: str, fix: str) -> AudioError:
    """The error for a file that cannot be opened as a recording."""
    with suppress(OSError):
        kind = kind_of(path)
        if kind is not None:
            return AudioError(f"not a recording but {kind}", where=where, fix="leave it out, or give the recording itself")
    return AudioError(what, where=where, fix=fix or _FIX)


@contextmanager
def _open_builtin(path: Path | PartialCopy, pieces: Sequence[Piece] | None) -> Iterator[OpenFile]:
    with ExitStack() as stack:
        sound = stack.enter_context(libsndfile.open_file(path, pieces))
        if sound is not None and sound.bitstream is None:
            yield sound
            return
        from rave_dist.audio.io import ffmpeg  # imported here: most recordings do not need its libraries

        decoded = stack.enter_context(ffmpeg.open_file(path, pieces))
        if sound is None:
            yield decoded
        elif decoded.subtype in _DECODED_STREAMS:
            note = f"the samples are a compressed stream ({sound.bitstream}), decoded here"
            yield replace(decoded, samples=None, notes=(*decoded.notes, note))
        else:
            raise AudioError(
                f"the samples are a compressed stream ({sound.bitstream}), which would sound as noise",
                fix="decode it to samples first, for example with the command ffmpeg, or leave it out",
            )


def _declared(sound: OpenFile, held: SoundBytes) -> int | None:
    """The length that the headers give, also where the decoder derives its own from the bytes of a truncated file."""
    counted = (
        sound.format not in ("mov", "matroska", "flv")
        and not sound.subtype.startswith("ALAC")
        and (sound.tolerance == 0 or sound.subtype.startswith("pcm_"))
    )
    if held.declared is None or not held.is_cut or not held.present or not sound.samples or not counted:
        return sound.samples
    if sound.format.lower() == "flac":
        return held.declared  # samples, not bytes
    # The bytes of a sample, where samples have equal bytes, of which the last one may be incomplete.
    for width in range(held.present // sound.samples, held.present // (sound.samples + 1), -1):
        if held.declared % width == 0:
            return held.declared // width
    return round(sound.samples * held.declared / held.present)


def _notes(sound: OpenFile, held: SoundBytes) -> Iterator[str]:
    if held.declared is not None and held.declared < held.present and sound.samples is not None:
        seconds = sound.samples / sound.sample_rate
        declared = round(sound.samples * held.declared / held.present) / sound.sample_rate
        yield f"the header declares {declared:.3f} s; all {seconds:.3f} s that the file holds are used"
    if held.stray_bytes:
        yield f"{held.stray_bytes} bytes behind the end of the sound are not used"


def probe(path: Path | str) -> AudioInfo:
    """The header values, without decoding; for a truncated file ``samples`` is the intended length.

    Raises:
        AudioError: empty, or not a sound file that libsndfile or FFmpeg can read.
        StoreError: the file is not there or may not be read.
    """
    with open_audio(path) as decoder:
        return AudioInfo(decoder.sample_rate, decoder.channels, decoder.declared_samples, decoder.format)


def printable(name: Path | str) -> str:
    r"""A path as valid UTF-8; other bytes become ``\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
