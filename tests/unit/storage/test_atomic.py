"""Files and folders appear complete or not at all, under temporary names that fit next to any name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rave_dist.storage.atomic import is_temporary, remove_leftovers, replacing, replacing_folder, temporary_path


@pytest.mark.parametrize("name", ["x", "take.partial-1.flac", "n" * 239, "ž" * 119])
def test_a_temporary_name_is_unique_known_and_at_most_16_bytes_longer(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    made = [temporary_path(place) for _ in range(50)]
    assert len(set(made)) == 50
    for path in made:
        assert path.parent == tmp_path
        assert len(path.name.encode()) - len(name.encode()) <= 16
        assert is_temporary(path.name)
    assert not is_temporary(name)
    with replacing(place) as temporary:
        temporary.write_text("fits")
    assert place.read_text() == "fits"


def test_a_file_is_replaced_when_the_block_succeeds_and_kept_when_it_fails(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old")

    def fail() -> None:
        with replacing(place) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read_text() == "old"
    with replacing(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read_text() == "new"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "made" / "folder"
    with replacing_folder(place) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")

    def fail() -> None:
        with replacing_folder(place) as temporary:
            temporary.mkdir()
            (temporary / "b").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in place.iterdir()] == ["a"]
    with replacing_folder(place) as temporary:
        temporary.mkdir()
        (temporary / "b").write_text("2")
    assert [path.name for path in place.iterdir()] == ["b"]
    assert [path.name for path in place.parent.iterdir()] == ["folder"]


def test_only_leftovers_of_the_same_file_are_removed(tmp_path: Path) -> None:
    place = tmp_path / "a.flac"
    kept = [temporary_path(tmp_path / "b.flac"), tmp_path / ".a.flac.partial-mine", place]
    for path in (*kept, temporary_path(place), temporary_path(place)):
        path.write_text("")
    remove_leftovers(place)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
