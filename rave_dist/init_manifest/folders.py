"""Scans a folder of folders for instruments and their recordings, and guesses their settings.

Headers give lengths, formats and sample rates; some seconds of a few recordings are decoded to distinguish stereo from two
equal channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rave_dist.audio.io.open import open_audio, printable
from rave_dist.audio.io.sources import find_sources
from rave_dist.audio.io.walk import is_audio_name, why_not_entered
from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.library.names import LONGEST_NAME, valid_name
from rave_dist.library.schema import HOUSE_DEFAULTS

_OPENED_AT_ONCE = 8
_LISTENED_RECORDINGS = 8  # of an instrument
_LISTENED_SECONDS = 10
_SAME = 1e-3  # channels that differ by less than this share of their peak are called equal


@dataclass(frozen=True)
class FoundRecording:
    """A recording that can be opened.

    Attributes:
        path: of the file.
        seconds: its length; 0 if the headers do not give it.
        sample_rate: in Hz.
        channels: as recorded.
        format: of the container.
    """

    path: str
    seconds: float
    sample_rate: int
    channels: int
    format: str


@dataclass(frozen=True)
class FoundInstrument:
    """A folder that becomes an instrument.

    Attributes:
        name: of the instrument.
        folder: of its recordings.
        recordings: those that can be opened.
        channels: the guess, 1 or 2.
    """

    name: str
    folder: Path
    recordings: tuple[FoundRecording, ...]
    channels: int

    @property
    def seconds(self) -> float:
        """Duration of all its recordings."""
        return sum(recording.seconds for recording in self.recordings)

    def to_json(self) -> dict[str, Any]:
        """Its entry in the document of ``rave-dist init``."""
        return {
            "name": self.name,
            "folder": printable(self.folder),
            "recordings": len(self.recordings),
            "seconds": round(self.seconds, 3),
            "formats": dict(Counter(recording.format for recording in self.recordings)),
            "sample_rates": dict(Counter(recording.sample_rate for recording in self.recordings)),
            "channels": self.channels,
        }


def find_instruments(folder: Path) -> tuple[list[FoundInstrument], list[str]]:
    """The folders with recordings in a folder, by name, and warnings about omitted files and folders.

    Raises:
        StoreError: the folder cannot be read.
    """
    instruments: list[FoundInstrument] = []
    warnings: list[str] = []
    taken: set[str] = set()
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise from_os_error(error, where=str(folder)) from error
    loose = [path for path in entries if path.is_file() and is_audio_name(path.name)]
    if loose:
        warnings.append(
            f"{recordings_in_words(len(loose))} in no instrument's folder ({_first_names(loose)}): move them into one"
        )
    for place in entries:
        if why_not_entered(place.name) or not place.is_dir():
            continue
        if printable(place) != str(place):
            warnings.append(f"{printable(place.name)}: its name is not UTF-8; rename the folder to use it")
            continue
        try:
            listing = find_sources([str(place)])
        except AudioError:
            warnings.append(f"{place.name}: no recordings in this folder")
            continue
        except StoreError as error:
            warnings.append(f"{place.name}: {error.what}")
            continue
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            opened = list(pool.map(_open, [source.uri for source in listing.sources]))
        recordings = tuple(recording for recording in opened if isinstance(recording, FoundRecording))
        warnings += [reason for reason in opened if isinstance(reason, str)]
        warnings += [f"{entry.names[0]}: not used, {entry.reason}" for entry in listing.passed_over if entry.missing]
        if recordings:
            name = _free_name(place.name, taken)
            instruments.append(FoundInstrument(name, place, recordings, _guess_channels(recordings)))
    return instruments, warnings


def _open(path: str) -> FoundRecording | str:
    """A recording, or the reason why it cannot be used."""
    try:
        with open_audio(path) as decoder:
            seconds = (decoder.declared_samples or 0) / decoder.sample_rate
            return FoundRecording(path, seconds, decoder.sample_rate, decoder.channels, decoder.format)
    except (AudioError, StoreError) as error:
        return f"{printable(path)}: {error.what}"


def _guess_channels(recordings: Sequence[FoundRecording]) -> int:
    """Two, if most of the sound has two channels that differ."""
    step = -(-len(recordings) // _LISTENED_RECORDINGS)
    return most_common(((2 if _is_stereo(r) else 1, r.seconds) for r in recordings[::step]), (1, 2))


def _is_stereo(recording: FoundRecording) -> bool:
    """Whether the first seconds that are not silent differ between the first two channels."""
    if recording.channels < 2:
        return False
    try:
        with open_audio(recording.path) as decoder:
            for block in islice(decoder.blocks(1), _LISTENED_SECONDS):
                if np.abs(block[0] - block[1]).max() > _SAME * np.abs(block[:2]).max():
                    return True
    except (AudioError, StoreError):
        pass  # the readable part has been compared
    return False


def _free_name(folder: str, taken: set[str]) -> str:
    """A valid name for an instrument, unique regardless of case, which is added to the used ones."""
    name = valid_name(folder) or "instrument"
    candidate, number = name, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{name[: LONGEST_NAME - len(str(number)) - 1]}-{number}"
    taken.add(candidate.lower())
    return candidate


def most_common(values: Iterable[tuple[int, float]], allowed: Iterable[int]) -> int:
    """The allowed value with the most seconds; the first one if several are equal."""
    seconds: dict[int, float] = {}
    for value, weight in values:
        if value in allowed:
            seconds[value] = seconds.get(value, 0.0) + weight
    return max(seconds, key=lambda value: seconds[value]) if seconds else int(HOUSE_DEFAULTS.sample_rate or 44100)


def recordings_in_words(count: int) -> str:
    """``1 recording``, ``2 recordings``."""
    return f"{count} recording{'' if count == 1 else 's'}"


def _first_names(paths: Sequence[Path]) -> str:
    names = ", ".join(printable(path.name) for path in paths[:3])
    return f"{names}, …" if len(paths) > 3 else names
