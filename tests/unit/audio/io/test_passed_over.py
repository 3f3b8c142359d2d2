"""Whatever lies among the recordings and is not used is counted with its reason, and stops nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rave_dist.audio.io.sources import find_sources, list_sources
from rave_dist.errors import AudioError, StoreError
from rave_dist.records import PassedOver
from tests.file_systems import as_somebody_else


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    for name in (
        *("a.wav", "b/c.FLAC", "b/cover.jpg", "b/notes.txt", "b/scan.JPG", "README"),
        *(".DS_Store", "._a.wav", "b/Thumbs.db", "desktop.ini", ".git/d.wav"),
        *("#recycle/old.wav", "b/@eaDir/a.wav/thumb.mp3", "lost+found/x.wav", "System Volume Information/y.wav"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / "annex.flac").symlink_to(".git/annex/objects/none")
    (root / "cover.png").symlink_to("nowhere.png")
    (root / "round.wav").symlink_to("round.wav")
    os.mkfifo(root / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
    (root / "zero.wav").symlink_to("/dev/zero")
    return root


def counts(passed_over: tuple[PassedOver, ...]) -> dict[tuple[str, str], int]:
    return {(entry.reason, entry.extension): entry.count for entry in passed_over}


def names(pattern: object) -> list[str]:
    return [source.relative for source in list_sources([str(pattern)])]


def test_every_file_below_a_folder_is_used_or_counted_with_a_reason(folder: Path) -> None:
    listing = find_sources([str(folder)])
    assert [source.relative for source in listing.sources] == ["a.wav", "b/c.FLAC"]
    system = "made by the operating system or a disk station"
    assert counts(listing.passed_over) == {
        ("a link to a missing file", ".flac"): 1,
        ("a link to a missing file", ".png"): 1,
        ("a file that cannot be read: Too many levels of symbolic links", ".wav"): 1,
        ("a FIFO, socket or device", ".wav"): 2,
        ("a FIFO, socket or device", ""): 1,
        ("hidden", ""): 2,
        ("hidden", ".wav"): 1,
        (system, ""): 4,
        (system, ".db"): 1,
        (system, ".ini"): 1,
        ("not an audio extension", ".jpg"): 2,
        ("not an audio extension", ".txt"): 1,
        ("not an audio extension", ""): 1,
    }
    assert [entry.names for entry in listing.passed_over if entry.missing] == [
        (f"{folder}/round.wav",),
        (f"{folder}/annex.flac",),
    ]
    (jpg,) = (entry for entry in listing.passed_over if entry.extension == ".jpg")
    assert jpg.names == (f"{folder}/b/cover.jpg", f"{folder}/b/scan.JPG")


def test_a_file_that_is_named_is_not_passed_over_by_another_pattern(folder: Path) -> None:
    listing = find_sources([str(folder / "b"), str(folder / "b" / "notes.txt")])
    assert [source.relative for source in listing.sources] == ["c.FLAC", "notes.txt"]
    assert ("not an audio extension", ".txt") not in counts(listing.passed_over)
    overlapping = find_sources([str(folder), str(folder / "b")])
    assert counts(overlapping.passed_over) == counts(find_sources([str(folder)]).passed_over)


def test_names_are_kept_of_a_few_and_all_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    for number in range(150):
        (tmp_path / f"{number:03d}.jpg").touch()
        (tmp_path / f"{number:03d}.flac").symlink_to("nowhere")
    missing, pictures = find_sources([str(tmp_path), str(tmp_path)]).passed_over
    assert (missing.count, pictures.count) == (150, 150)
    assert missing.names == tuple(f"{tmp_path}/{number:03d}.flac" for number in range(100))
    assert pictures.names == tuple(f"{tmp_path}/{number:03d}.jpg" for number in range(3))


def test_a_glob_counts_only_what_it_matches(folder: Path) -> None:
    listing = find_sources([f"{folder}/*.wav"])
    assert [source.relative for source in listing.sources] == ["a.wav"]
    assert sum(counts(listing.passed_over).values()) == 4  # ._a.wav, pipe.wav, round.wav, zero.wav
    deep = counts(find_sources([f"{folder}/**/*.flac"]).passed_over)
    assert deep[("a link to a missing file", ".flac")] == 1
    assert deep[("hidden", "")] == 1, "the glob would match inside of .git"
    everything = counts(find_sources([f"{folder}/*"]).passed_over)
    assert everything[("a folder, which the pattern does not enter", "")] == 1
    assert everything[("made by the operating system or a disk station", "")] == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [("pipe.wav", "FIFO"), ("annex.flac", "link to a missing file"), ("zero.wav", "device"), (".git", "hidden|no recording")],
)
def test_what_is_named_and_is_no_file_is_refused_with_the_reason(folder: Path, name: str, reason: str) -> None:
    if name == ".git":
        assert names(folder / name) == ["d.wav"], "a folder that is named is entered"
        return
    with pytest.raises(AudioError, match=reason) as caught:
        list_sources([f"{folder}/{name}"])
    assert caught.value.where == f"{folder}/{name}"
    assert caught.value.fix


def test_nothing_but_missing_files_says_how_to_fetch_them(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.flac").symlink_to("../.git/annex/objects/none")
    (tmp_path / "x.md5").touch()
    with pytest.raises(AudioError, match=r"3 \.flac: a link to a missing file, 1 \.md5: not an audio extension") as caught:
        list_sources([str(tmp_path)])
    assert "git annex get" in caught.value.fix


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="rave-dist-test-") as place:
        os.chmod(place, 0o755)
        yield Path(place)


@pytest.mark.parametrize("depth", ["", "deep/deeper/"])
def test_an_unreadable_subfolder_is_named_and_the_rest_is_used(shared: Path, depth: str) -> None:
    private = shared / depth / "private"
    for path in (shared / "a.wav", private / "b.wav", shared / depth / "z" / "c.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    private.chmod(0)
    with as_somebody_else():
        listing = find_sources([str(shared)])
        glob = find_sources([f"{shared}/**/*.wav"])
        with pytest.raises(StoreError, match="no permission") as alone:
            list_sources([str(private)])
        with pytest.raises(StoreError, match="no permission"):  # not: no recording matches
            list_sources([str(private / "b.wav")])
    private.chmod(0o755)
    assert [source.relative for source in listing.sources] == ["a.wav", f"{depth}z/c.wav"]
    (passed,) = listing.passed_over
    assert passed.names == (str(private),)
    assert passed.reason == "a folder that cannot be read: Permission denied"
    assert passed.missing
    assert glob == listing
    assert alone.value.where == str(private)


def test_a_folder_that_is_named_and_unreadable_is_an_error(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(20):
        deep /= "x" * 250
    with pytest.raises((StoreError, AudioError)) as caught:
        list_sources([str(deep)])
    assert caught.value.where == str(deep)


def test_a_path_too_long_to_be_listed_is_named(tmp_path: Path) -> None:
    """Deeper than a path may be long: its folders are made, and entered, one by one."""
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("y" * 250)
            os.chdir("y" * 250)
    finally:
        os.chdir(before)
    (tmp_path / "a.wav").touch()
    listing = find_sources([str(tmp_path)])
    assert [source.relative for source in listing.sources] == ["a.wav"]
    (passed,) = listing.passed_over
    assert passed.missing
    assert passed.reason.endswith("cannot be read: File name too long")
    subprocess.run(["rm", "-rf", str(tmp_path / ("y" * 250))], check=True)


@pytest.mark.parametrize("pattern", ["*.wav", "*.WAV", "*.Wav", "*.w[a]v", "sub/../*.wav"])
def test_the_letter_case_of_an_extension_does_not_matter(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("UPPER.WAV", "lower.wav", "Mixed.Wav", "x.wave"):
        (tmp_path / name).touch()
    assert names(f"{tmp_path}/{pattern}") == ["Mixed.Wav", "UPPER.WAV", "lower.wav"]
    assert names(f"{tmp_path}/U{pattern.rpartition('/')[2]}") == ["UPPER.WAV"], "other letters of a name do matter"


@pytest.fixture
def brackets(tmp_path: Path) -> Path:
    for name in (
        "take [1].wav",
        "take 1.wav",
        "take 2.wav",
        "Session [2024]/a.wav",
        "Session [2024]/deep [x]/b.wav",
        "S/c.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_path_that_exists_is_no_glob(brackets: Path) -> None:
    assert names(brackets / "take [1].wav") == ["take [1].wav"]
    assert names(brackets / "Session [2024]") == ["a.wav", "deep [x]/b.wav"]
    assert names(brackets / "Session [2024]" / "*.wav") == ["a.wav"]
    assert names(brackets / "Session [2024]" / "deep [x]" / "*") == ["b.wav"]
    assert find_sources([str(brackets / "Session [2024]" / "*.wav")]).notes == ()


def test_a_bracket_that_is_taken_as_a_wildcard_is_pointed_out(brackets: Path) -> None:
    listing = find_sources([str(brackets / "take [12].wav")])
    assert [source.relative for source in listing.sources] == ["take 1.wav", "take 2.wav"]
    (note,) = listing.notes
    assert note.startswith(f"{brackets}/take [12].wav: [12] stands for one of the characters")
    with pytest.raises(AudioError, match=r"\[3\] stands for one of the characters") as caught:
        list_sources([str(brackets / "take [3].wav")])
    assert "[[]" in caught.value.fix
    assert names(brackets / "take [[]1].wav") == ["take [1].wav"]


def test_braces_are_pointed_out(brackets: Path) -> None:
    with pytest.raises(AudioError) as caught:
        list_sources([f"{brackets}/*.{{wav,flac}}"])
    assert "braces" in caught.value.fix


def test_a_glob_does_not_follow_links_in_circles(brackets: Path) -> None:
    (brackets / "S" / "loop").symlink_to(brackets)
    assert names(f"{brackets}/**/c.wav") == ["S/c.wav"]


def test_the_same_in_a_store(s3_store) -> None:
    for name in ("UPPER.WAV", "take [1].wav", "d [2]/b.wav", "cover.jpg", ".DS_Store", "@eaDir/x.wav", "Thumbs.db"):
        s3_store.write_bytes(f"in/{name}", b"x")
    root = s3_store.address("in")
    listing = find_sources([root])
    assert [source.relative for source in listing.sources] == ["UPPER.WAV", "d [2]/b.wav", "take [1].wav"]
    system = "made by the operating system or a disk station"
    assert counts(listing.passed_over) == {
        ("hidden", ""): 1,
        (system, ".wav"): 1,
        (system, ".db"): 1,
        ("not an audio extension", ".jpg"): 1,
    }
    assert names(f"{root}/*.wav") == ["UPPER.WAV", "take [1].wav"]
    assert names(f"{root}/take [1].wav") == ["take [1].wav"]
    assert names(f"{root}/d [2]") == ["b.wav"]
    assert names(f"{root}/d [2]/*.wav") == ["b.wav"]
    assert find_sources([f"{root}/[A-Z]*.wav"]).notes != ()
