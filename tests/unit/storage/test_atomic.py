"""Files and folders appear complete or not at all, under temporary names that fit next to any name."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from io import FileIO
from pathlib import Path

import pytest

from rave_dist.errors import StoreError
from rave_dist.storage.atomic import is_temporary, replacing, replacing_alone, replacing_folder, temporary_path


@pytest.mark.parametrize("name", ["x", ".partial-take.flac", "n" * 255, "ž" * 127, "\udcff" * 255])
def test_a_temporary_name_is_unique_known_and_short_whatever_the_name(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    made = [temporary_path(place) for _ in range(50)]
    assert len(set(made)) == 50
    for path in made:
        assert path.parent == tmp_path
        assert len(path.name.encode()) == 21
        assert is_temporary(path.name)
    assert not is_temporary(name)
    with replacing(place) as temporary:
        temporary.write_text("fits")
    assert place.read_text() == "fits"
    with replacing_alone(place) as file:
        assert all(is_temporary(path.name) for path in tmp_path.iterdir() if path != place)
        file.write(b"fits too")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert place.read_text() == "fits too"


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


KILLED = """
import os, signal, sys
from pathlib import Path
from rave_dist.storage.atomic import replacing_alone
with replacing_alone(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_replaced_by_the_next_writer_of_the_same_file(tmp_path: Path) -> None:
    other, place = tmp_path / "b.flac", tmp_path / "a.flac"
    for path in (other, place):
        assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -signal.SIGKILL
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert all(map(is_temporary, left))
    with replacing_alone(place) as file:
        file.write(b"whole")
    assert place.read_bytes() == b"whole"
    kept = [path for path in tmp_path.iterdir() if path != place]
    assert len(kept) == 1, "that of the other file"
    with replacing_alone(other) as file:
        file.write(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "b.flac"]


def test_of_two_writers_the_second_succeeds_and_the_first_is_told(tmp_path: Path) -> None:
    place = tmp_path / "a.flac"

    def write_while(other: Callable[[], AbstractContextManager[FileIO]]) -> None:
        with replacing_alone(place) as file, other() as second:
            file.write(b"first")
            second.write(b"second")

    with pytest.raises(StoreError, match="another process"):
        write_while(lambda: replacing_alone(place))
    assert place.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [place]
    unfinished = replacing_alone(place)
    with pytest.raises(StoreError, match="another process"):
        write_while(lambda: nullcontext(unfinished.__enter__()))
    assert place.read_bytes() == b"second", "not the half of the other one"


def test_a_folder_in_the_place_of_a_file_stays_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.flac").mkdir()
    with pytest.raises(IsADirectoryError), replacing_alone(tmp_path / "a.flac") as file:
        file.write(b"whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.flac"]
