"""Which recordings a pattern means, on disk and on S3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rave_dist.audio.io.sources import find_sources, list_sources, local_copy
from rave_dist.errors import AudioError, StoreError

FILES = ["a.wav", "b/Ünïcode name.FLAC", "b/c/d.ogg", "b/c/notes.txt", "b/.hidden.wav", ".git/e.wav", "b/model.ts", "f [1].mp3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "recordings"


def names(patterns: list[str]) -> list[str]:
    return [source.relative for source in list_sources(patterns)]


def test_a_folder_means_all_recordings_below(folder):
    assert names([str(folder)]) == ["a.wav", "b/c/d.ogg", "b/Ünïcode name.FLAC", "f [1].mp3"]
    uris = [source.uri for source in list_sources([str(folder)])]
    assert uris == sorted(uris)
    assert all(os.path.isabs(uri) for uri in uris)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.ogg", ["b/c/d.ogg"]),
        ("*.wav", ["a.wav"]),
        ("b/*", ["Ünïcode name.FLAC"]),
        ("b/**", ["c/d.ogg", "Ünïcode name.FLAC"]),
        ("**/[ad].*", ["a.wav", "b/c/d.ogg"]),
        ("f [1].mp3", ["f [1].mp3"]),
        ("b/c/notes.txt", ["notes.txt"]),
        ("b/.hidden.wav", [".hidden.wav"]),
    ],
)
def test_globs_and_named_files(folder, pattern, expected):
    assert names([f"{folder}/{pattern}"]) == expected


def test_each_source_stands_once(folder):
    assert len(names([str(folder), f"{folder}/*.wav", str(folder / "a.wav")])) == 4


def test_linked_folders_are_entered_once(folder):
    (folder / "b" / "loop").symlink_to(folder)
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "g.wav").touch()
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    assert sorted(names([str(folder)])) == sorted(["a.wav", "b/c/d.ogg", "b/Ünïcode name.FLAC", "f [1].mp3", "link/g.wav"])


def test_relative_paths_and_home(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert names(["b/c"]) == ["d.ogg"]
    assert list_sources(["~/a.wav"])[0].uri == str(folder / "a.wav")


def test_the_fingerprint_changes_with_the_file(folder):
    (before,) = list_sources([str(folder / "a.wav")])
    os.utime(folder / "a.wav", (1, 1))
    (touched,) = list_sources([str(folder / "a.wav")])
    assert touched.fingerprint != before.fingerprint
    assert list_sources([str(folder / "a.wav")]) == [touched]


def test_names_that_are_not_utf8_can_be_written_down(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.wav", "wb"):
        pass
    source = next(s for s in list_sources([str(folder)]) if "caf" in s.uri)
    assert source.name.endswith("caf\\xe9.wav")
    source.name.encode()
    with local_copy(source.uri) as path:
        assert path.exists()


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.wav", "*.opus"])
def test_a_pattern_that_means_nothing_is_an_error(folder, pattern):
    with pytest.raises(AudioError, match="no recording matches") as caught:
        list_sources([str(folder), f"{folder}/{pattern}"])
    assert caught.value.where == f"{folder}/{pattern}"


def test_a_misspelt_path_gets_the_nearest_name(tmp_path):
    (tmp_path / "Rebana" / "1974").mkdir(parents=True)
    for pattern, fix in (
        ("rebana", f"did you mean {tmp_path}/Rebana?"),
        ("Rebana/1947/take.wav", f"did you mean {tmp_path}/Rebana/1974?"),
        ("Rebana\\1974", "write / between folders"),
        ("gamelan", "put recordings there"),
    ):
        with pytest.raises(AudioError, match="there is no such file or folder") as caught:
            list_sources([f"{tmp_path}/{pattern}"])
        assert fix in caught.value.fix
    with pytest.raises(AudioError, match="no recording matches") as caught:
        list_sources([str(tmp_path / "Rebana")])
    assert caught.value.what == "no recording matches"


def test_the_same_on_s3(folder, s3_store):
    for name in FILES:
        s3_store.write_bytes(f"recordings/{name}", name.encode())
    root = s3_store.address("recordings")
    assert sorted(names([root])) == sorted(names([str(folder)]))
    for pattern in ("**/*.ogg", "*.wav", "b/*", "b/**", "**/[ad].*", "b/c/notes.txt"):
        assert sorted(names([f"{root}/{pattern}"])) == sorted(names([f"{folder}/{pattern}"])), pattern
    (source,) = list_sources([f"{root}/b/Ünïcode name.FLAC"])
    assert source.relative == "Ünïcode name.FLAC"
    with local_copy(source.uri) as path:
        assert path.read_bytes() == "b/Ünïcode name.FLAC".encode()
        assert path.suffix == ".FLAC"
    assert not path.exists()
    before = source.fingerprint
    s3_store.write_bytes("recordings/b/Ünïcode name.FLAC", b"other")
    assert list_sources([source.uri])[0].fingerprint != before


def test_a_named_object_is_not_passed_over(s3_store):
    for name in ("a.wav", "take.bin", "notes.txt"):
        s3_store.write_bytes(f"recordings/{name}", name.encode())
    prefix, named = s3_store.address("recordings"), s3_store.address("recordings/take.bin")
    listing = find_sources([prefix, named])
    assert [source.relative for source in listing.sources] == ["a.wav", "take.bin"]
    assert [(entry.extension, entry.count) for entry in listing.passed_over] == [(".txt", 1)]


def test_a_missing_object_or_bucket_is_an_error(s3_store):
    with pytest.raises(AudioError, match="no recording matches"):
        list_sources([s3_store.address("nowhere")])
    with pytest.raises(StoreError):
        list_sources(["s3://no-such-bucket-of-ours/recordings"])
