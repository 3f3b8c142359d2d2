"""A first manifest from a folder of folders: every folder with recordings becomes an instrument.

Headers give lengths, formats and sample rates; some seconds of a few recordings are decoded to tell stereo from two equal
channels.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rave_dist.audio.io.open import open_audio, printable
from rave_dist.audio.io.sources import is_audio_name, list_sources
from rave_dist.errors import AudioError, LibraryError, StoreError, from_os_error
from rave_dist.library.keys import in_yaml
from rave_dist.library.reading import validate
from rave_dist.library.schema import HOUSE_DEFAULTS

_OPENED_AT_ONCE = 8
_LISTENED_RECORDINGS = 8  # of an instrument
_LISTENED_SECONDS = 10
_SAME = 1e-3  # channels that differ by less than this share of their peak are called equal
_RATES = range(8000, 192_001)
_LONGEST_NAME = 63


@dataclass(frozen=True)
class FoundRecording:
    """A recording that can be opened.

    Attributes:
        path: where it is.
        seconds: its length; 0 where its headers do not say.
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
        name: the instrument's.
        folder: where its recordings are.
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


@dataclass
class FirstManifest:
    """A manifest that was written, and what was found for it.

    Attributes:
        path: the manifest.
        instruments: in the order of their folders.
        sample_rate: the guess for the library, in Hz.
        channels: the guess for the library.
        warnings: what is not in the manifest, and why.
    """

    path: Path
    instruments: list[FoundInstrument] = field(default_factory=list)
    sample_rate: int = 0
    channels: int = 1
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist init``."""
        return {
            "manifest": str(self.path),
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "instruments": [instrument.to_json() for instrument in self.instruments],
            "warnings": self.warnings,
        }


def write_first_manifest(folder: Path, output: Path) -> FirstManifest:
    """Writes a commented manifest for the folders in a folder.

    Args:
        folder: has a folder of recordings for each instrument; folders in these are searched too.
        output: the manifest; never overwritten.

    Raises:
        LibraryError: no such folder, no folder with recordings in it, or the manifest exists.
        StoreError: a folder cannot be read, or the manifest cannot be written.
    """
    if os.path.lexists(output):
        raise LibraryError("this file exists already", where=str(output), fix="delete it, or name another with --output")
    if not folder.is_dir():
        raise LibraryError("there is no such folder", where=str(folder), fix="give the folder with the instruments' folders")
    found = FirstManifest(output)
    _find_instruments(folder, found)
    if not found.instruments:
        raise LibraryError(
            "no folder with recordings in it",
            where=str(folder),
            fix="put the recordings of each instrument into a folder there",
        )
    found.sample_rate = _usual(((r.sample_rate, r.seconds) for i in found.instruments for r in i.recordings), _RATES)
    found.channels = _usual(((i.channels, i.seconds) for i in found.instruments), (1, 2))
    text = _text(folder, found)
    validate(yaml.safe_load(text), where=str(output))
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except FileNotFoundError as error:
        raise LibraryError("its folder does not exist", where=str(output), fix="make the folder first") from error
    except OSError as error:
        raise from_os_error(error, where=str(output)) from error
    return found


def _find_instruments(folder: Path, found: FirstManifest) -> None:
    taken: set[str] = set()
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise from_os_error(error, where=str(folder)) from error
    loose = [path for path in entries if path.is_file() and is_audio_name(path.name)]
    if loose:
        found.warnings.append(
            f"{_recordings(len(loose))} in no instrument's folder ({_first_names(loose)}): move them into one to use them"
        )
    for place in entries:
        if place.name.startswith(".") or not place.is_dir():
            continue
        if printable(place) != str(place):
            found.warnings.append(f"{printable(place.name)}: its name is not UTF-8; rename the folder to use it")
            continue
        try:
            sources = list_sources([str(place)])
        except AudioError:
            found.warnings.append(f"{place.name}: no recordings in this folder")
            continue
        except StoreError as error:
            found.warnings.append(f"{place.name}: {error.what}")
            continue
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            opened = list(pool.map(_open, [source.uri for source in sources]))
        recordings = tuple(recording for recording in opened if isinstance(recording, FoundRecording))
        found.warnings += [reason for reason in opened if isinstance(reason, str)]
        if recordings:
            name = _free_name(place.name, taken)
            found.instruments.append(FoundInstrument(name, place, recordings, _guess_channels(recordings)))


def _open(path: str) -> FoundRecording | str:
    """A recording, or why it cannot be used."""
    try:
        with open_audio(path) as decoder:
            seconds = (decoder.declared_samples or 0) / decoder.sample_rate
            return FoundRecording(path, seconds, decoder.sample_rate, decoder.channels, decoder.format)
    except (AudioError, StoreError) as error:
        return f"{printable(path)}: {error.what}"


def _guess_channels(recordings: Sequence[FoundRecording]) -> int:
    """Two, if most of the sound has two channels that differ."""
    step = -(-len(recordings) // _LISTENED_RECORDINGS)
    return _usual(((2 if _is_stereo(r) else 1, r.seconds) for r in recordings[::step]), (1, 2))


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
        pass  # what could be read before the damage has been compared
    return False


def _usual(values: Iterable[tuple[int, float]], allowed: Iterable[int]) -> int:
    """The allowed value with the most seconds; of two that are equal the one that comes first."""
    seconds: dict[int, float] = {}
    for value, weight in values:
        if value in allowed:
            seconds[value] = seconds.get(value, 0.0) + weight
    return max(seconds, key=lambda value: seconds[value]) if seconds else int(HOUSE_DEFAULTS.sample_rate or 44100)


def _free_name(folder: str, taken: set[str]) -> str:
    """A valid name for an instrument that no other has, in upper or lower case; remembered as taken."""
    name = valid_name(folder) or "instrument"
    candidate, number = name, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{name[: _LONGEST_NAME - len(str(number)) - 1]}-{number}"
    taken.add(candidate.lower())
    return candidate


def valid_name(text: str) -> str:
    """A text as the name of an instrument or library: letters, digits, ``.``, ``_`` and ``-``; empty where none is left.

    Example:
        >>> valid_name("Gaïta (2024)")
        'Gaita-2024'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:_LONGEST_NAME]


def _text(folder: Path, found: FirstManifest) -> str:
    lines = [
        "# Written by rave-dist init. The README describes every key; rave-dist schema prints a JSON Schema for editors.",
        f"name: {in_yaml(valid_name(folder.resolve().name) or 'library')}",
        "store: ./store # where everything is kept: a folder or s3://bucket/prefix",
        "",
        "# Settings of all instruments; values set on an instrument override them.",
        "defaults:",
        "  config: v2_small # smaller, for quick experiments: v2_tiny",
        f"  sample_rate: {found.sample_rate} # {_counted(r.sample_rate for i in found.instruments for r in i.recordings)} Hz",
        f"  channels: {found.channels} # "
        + ("the channels differ" if found.channels == 2 else "mono, or channels that are equal"),
        "  budget: {hours: 4} # of training for each instrument",
        "",
        "instruments:",
    ]
    for instrument in found.instruments:
        formats = _counted(recording.format for recording in instrument.recordings)
        amount = f"{_seconds(instrument.seconds)} in {_recordings(len(instrument.recordings))}: {formats}"
        lines += [
            f"  {in_yaml(instrument.name)}: # {amount}",
            f"    sources: {in_yaml([_relative(instrument.folder, found.path)])}",
        ]
        if instrument.channels != found.channels:
            lines.append(f"    channels: {instrument.channels} # unlike most of the library")
        lines.append("    # credit: {performer: '', place: '', licence: '', source: ''}")
    return "\n".join(lines) + "\n"


def _relative(folder: Path, manifest: Path) -> str:
    """A folder as seen from the manifest's own; never begins with ``~``, which stands for a home."""
    path = os.path.relpath(folder.absolute(), manifest.absolute().parent)
    return f"./{path}" if path.startswith("~") else path


def _counted(values: Iterable[Any]) -> str:
    """``12 × 44100, 3 × 48000``."""
    return ", ".join(f"{count} × {value}" for value, count in Counter(values).most_common())


def _recordings(count: int) -> str:
    return f"{count} recording{'' if count == 1 else 's'}"


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _first_names(paths: Sequence[Path]) -> str:
    names = ", ".join(printable(path.name) for path in paths[:3])
    return f"{names}, …" if len(paths) > 3 else names
