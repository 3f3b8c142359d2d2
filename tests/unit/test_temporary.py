"""Temporary folders of killed processes are removed by a later one; those of living ones, and what is not ours, stay."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rave_dist.temporary import remove_abandoned, temporary_folder

HOLDER = """
import sys
from pathlib import Path
from rave_dist.temporary import temporary_folder

with temporary_folder("run") as folder:
    Path(folder, "state.pt").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_exists_while_its_context_is_open(place: Path) -> None:
    with temporary_folder("run") as folder:
        assert Path(folder).is_relative_to(place)
        assert os.listdir(folder) == []
        assert remove_abandoned() == []
        Path(folder, "file").write_text("content")
    assert list(place.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed(place: Path) -> None:
    command = [sys.executable, "-c", HOLDER]
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert remove_abandoned() == []
        assert (folder / "state.pt").stat().st_size == 1000
        holder.kill()
        holder.wait()
    assert folder.exists()
    assert remove_abandoned() == [folder.parent.name]
    assert list(place.iterdir()) == []


def test_what_is_not_ours_is_kept(place: Path) -> None:
    for name in ("rave-dist-checkout", "rave-dist-run-20261126", "rave-dist-about"):
        (place / name).mkdir()
    (place / "rave-dist-checkout" / "in-use").write_text("my notes")
    (place / "rave-dist-about" / "in-use").touch()  # not locked yet
    (place / "elsewhere").write_bytes(b"rave-dist\n")
    (place / "rave-dist-run-20261126" / "in-use").symlink_to(place / "elsewhere")
    assert remove_abandoned() == []
    assert sorted(os.listdir(place)) == ["elsewhere", "rave-dist-about", "rave-dist-checkout", "rave-dist-run-20261126"]
