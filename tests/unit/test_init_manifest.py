"""A folder of folders becomes a manifest that loads, with guesses that fit the recordings."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import list_sources
from rave_dist.errors import LibraryError, StoreError
from rave_dist.init_manifest.write import write_first_manifest
from rave_dist.library import names
from rave_dist.library.manifest import load_library
from rave_dist.library.names import valid_name


def _record(path: Path, *, seconds: float = 1.0, rate: int = 44100, channels: str = "mono") -> None:
    """A recording whose two channels are ``equal``, ``different``, or different after a silent second (``late``)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).uniform(-0.3, 0.3, (round(seconds * rate), 2))
    if channels == "mono":
        noise = noise[:, :1]
    elif channels == "equal":
        noise[:, 1] = noise[:, 0]
    elif channels == "late":
        noise[: round(1.5 * rate)] = 0
    soundfile.write(path, noise, rate)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with two mono instruments and a stereo one."""
    folder = tmp_path / "Malay percussion"
    for number in range(3):
        _record(folder / "rebana" / "old" / f"{number}.wav", seconds=2, channels="equal")
    _record(folder / "rebana" / "new.flac")
    _record(folder / "Kompang (2024)" / "a.wav", seconds=2)
    _record(folder / "gamelan" / "a.wav", rate=48000, channels="different")
    return folder


def test_a_folder_of_folders_becomes_a_manifest_that_loads(recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "library.yaml"
    found = write_first_manifest(recordings, output)
    library = load_library(output)
    assert library.name == "Malay-percussion"
    assert library.instruments == ("Kompang-2024", "gamelan", "rebana")
    assert {name: len(list_sources(library.sources(name))) for name in library.instruments} == {
        **{"Kompang-2024": 1, "gamelan": 1, "rebana": 4},
    }
    channels = {name: library.settings(name).channels for name in library.instruments}
    assert channels == {"Kompang-2024": 1, "gamelan": 2, "rebana": 1}
    assert {library.settings(name).sample_rate for name in library.instruments} == {44100}, "the most common"
    assert [round(instrument.seconds) for instrument in found.instruments] == [2, 1, 7]
    assert found.warnings == []
    text = output.read_text(encoding="utf-8")
    assert "# 7.0 s in 4 recordings: 3 × WAV, 1 × FLAC" in text
    assert "# 5 × 44100, 1 × 48000 Hz" in text
    assert "# credit:" in text


def test_the_manifest_finds_its_recordings_from_another_folder(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_first_manifest(recordings, tmp_path / "elsewhere" / "library.yaml")
    library = load_library(tmp_path / "elsewhere" / "library.yaml")
    assert len(list_sources(library.sources("rebana"))) == 4
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "library.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("channels", "guess"), [("mono", 1), ("equal", 1), ("different", 2), ("late", 2)])
def test_two_channels_are_stereo_where_they_differ(tmp_path: Path, channels: str, guess: int) -> None:
    _record(tmp_path / "in" / "drums" / "a.wav", seconds=3, channels=channels)
    assert write_first_manifest(tmp_path / "in", tmp_path / "library.yaml").channels == guess


def test_a_manifest_is_never_overwritten(recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "library.yaml"
    output.write_text("mine")
    with pytest.raises(LibraryError, match="already exists") as caught:
        write_first_manifest(recordings, output)
    assert "--output" in caught.value.fix
    assert output.read_text() == "mine"


def test_what_is_left_out_is_named(recordings: Path, tmp_path: Path) -> None:
    _record(recordings / "loose.wav")
    (recordings / "notes").mkdir()
    (recordings / "rebana" / "broken.wav").write_text("this is no sound")
    for name in (".hidden", "#recycle", "lost+found"):
        _record(recordings / name / "old.wav")
    (recordings / "rebana" / "annex.flac").symlink_to("nowhere")
    found = write_first_manifest(recordings, tmp_path / "library.yaml")
    loose, notes, broken, annex = found.warnings
    assert annex == f"{recordings}/rebana/annex.flac: not used, a link to a missing file"
    assert "loose.wav" in loose
    assert "1 recording in no instrument's folder" in loose
    assert notes.startswith("notes: ")
    assert "broken.wav" in broken
    assert len(found.instruments) == 3


def test_names_are_valid_and_differ(tmp_path: Path) -> None:
    for number, name in enumerate(("Drums!", "drums", "-drums-", "琵琶", "x" * 80, "1", "yes", "a: b #c", "~home", "[a]*")):
        _record(tmp_path / "in" / name / f"{number}.wav")
    write_first_manifest(tmp_path / "in", tmp_path / "library.yaml")
    library = load_library(tmp_path / "library.yaml")
    assert len(library.instruments) == 10
    assert {"instrument", "1", "yes", "a-b-c", "home", "a"} <= set(library.instruments)
    assert sorted(name.lower() for name in library.instruments if name.lower().startswith("drums")) == [
        *("drums", "drums-2", "drums-3")
    ]
    found = [os.path.basename(source.uri) for name in library.instruments for source in list_sources(library.sources(name))]
    assert sorted(found) == [f"{number}.wav" for number in range(10)], "every instrument finds its own recording"


def test_a_folder_whose_name_is_not_utf_8_is_named(recordings: Path, tmp_path: Path) -> None:
    _record(recordings / "ordinary" / "a.wav")
    try:
        os.rename(recordings / "ordinary", os.fsencode(recordings) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    (warning,) = write_first_manifest(recordings, tmp_path / "library.yaml").warnings
    assert warning.startswith("caf\\xe9: ")


@pytest.mark.parametrize("name", ["absent", "empty", "flat", "file"])
def test_what_has_no_folders_of_recordings_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    _record(tmp_path / "flat" / "a.wav")
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError) as caught:
        write_first_manifest(tmp_path / name, tmp_path / "library.yaml")
    assert caught.value.fix
    assert not (tmp_path / "library.yaml").exists()


def test_a_manifest_that_cannot_be_written_is_an_error_with_its_place(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="folder does not exist"):
        write_first_manifest(recordings, tmp_path / "absent" / "library.yaml")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        write_first_manifest(recordings, tmp_path / "file" / "library.yaml")


def test_the_command_says_the_next_one(recordings: Path, tmp_path: Path) -> None:
    def rave_dist(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rave_dist", "init", str(recordings), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)

    done = rave_dist()
    assert done.returncode == 0, done.stderr
    assert "next: rave-dist check library.yaml" in done.stdout
    assert load_library(tmp_path / "library.yaml").instruments
    assert rave_dist().returncode == 1
    document = json.loads(rave_dist("--json", "--output", "other.yaml").stdout)
    assert [instrument["name"] for instrument in document["instruments"]] == ["Kompang-2024", "gamelan", "rebana"]
    assert document["instruments"][2]["formats"] == {"WAV": 3, "FLAC": 1}


def test_the_examples_hold() -> None:
    done = doctest.testmod(names)
    assert done.attempted
    assert not done.failed
    assert valid_name("..") == ""
