"""Writes a first manifest, with comments, for a folder of folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rave_dist.errors import LibraryError, from_os_error
from rave_dist.init_manifest.folders import FoundInstrument, find_instruments, most_common, recordings_in_words
from rave_dist.library.keys import in_yaml
from rave_dist.library.names import valid_name
from rave_dist.library.reading import validate

_RATES = range(8000, 192_001)


@dataclass(frozen=True)
class FirstManifest:
    """A new manifest, and the instruments found.

    Attributes:
        path: the manifest.
        instruments: in the order of their folders.
        sample_rate: the guess for the library, in Hz.
        channels: the guess for the library.
        warnings: omitted files and folders, with reasons.
    """

    path: Path
    instruments: list[FoundInstrument]
    sample_rate: int
    channels: int
    warnings: list[str]

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
        folder: with a folder of recordings for each instrument, searched recursively.
        output: the manifest; never overwritten.

    Raises:
        LibraryError: no such folder, a file in its place, no folder with recordings in it, or the manifest exists.
        StoreError: a folder cannot be read, or the manifest cannot be written.
    """
    if os.path.lexists(output):
        raise LibraryError("this file already exists", where=str(output), fix="delete it, or choose another with --output")
    if not folder.is_dir():
        what = "this is a file, not a folder" if folder.exists() else "there is no such folder"
        raise LibraryError(what, where=str(folder), fix="give the folder with the instruments' folders")
    instruments, warnings = find_instruments(folder)
    if not instruments:
        raise LibraryError(
            "no folder with recordings in it",
            where=str(folder),
            fix="put the recordings of each instrument into a folder there",
        )
    sample_rate = most_common(((r.sample_rate, r.seconds) for i in instruments for r in i.recordings), _RATES)
    channels = most_common(((i.channels, i.seconds) for i in instruments), (1, 2))
    found = FirstManifest(output, instruments, sample_rate, channels, warnings)
    text = _text(folder, found)
    validate(yaml.safe_load(text), where=str(output))
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except FileNotFoundError as error:
        raise LibraryError("its folder does not exist", where=str(output), fix="create the folder first") from error
    except OSError as error:
        raise from_os_error(error, where=str(output)) from error
    return found


def _text(folder: Path, found: FirstManifest) -> str:
    lines = [
        "# Written by rave-dist init. The README describes every key; rave-dist schema prints a JSON Schema for editors.",
        f"name: {in_yaml(valid_name(folder.resolve().name) or 'library')}",
        "store: ./store # of datasets, runs and models: a folder or s3://bucket/prefix",
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
        amount = f"{_seconds(instrument.seconds)} in {recordings_in_words(len(instrument.recordings))}: {formats}"
        lines += [
            f"  {in_yaml(instrument.name)}: # {amount}",
            f"    sources: {in_yaml([_relative(instrument.folder, found.path)])}",
        ]
        if instrument.channels != found.channels:
            lines.append(f"    channels: {instrument.channels} # unlike most of the library")
        lines.append("    # credit: {performer: '', place: '', licence: '', source: ''}")
    return "\n".join(lines) + "\n"


def _relative(folder: Path, manifest: Path) -> str:
    """A folder relative to that of the manifest; never starts with ``~``, which would be a home folder."""
    path = os.path.relpath(folder.absolute(), manifest.absolute().parent)
    return f"./{path}" if path.startswith("~") else path


def _counted(values: Iterable[Any]) -> str:
    """``12 × 44100, 3 × 48000``."""
    return ", ".join(f"{count} × {value}" for value, count in Counter(values).most_common())


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
