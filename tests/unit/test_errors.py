"""Errors say what, where and the fix, and do so after crossing a process border."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rave_dist import errors
from rave_dist.errors import MissingKeyError, RaveDistError, StoreError, from_os_error, known_error
from tests.file_systems import tmpfs


def test_a_message_has_place_sentence_and_fix() -> None:
    error = RaveDistError("the key is unknown", where="library.yaml", fix="did you mean 'store'?")
    assert str(error) == "library.yaml: the key is unknown\n  fix: did you mean 'store'?"
    assert str(RaveDistError("only this")) == "only this"


def test_a_missing_key_prints_as_a_sentence() -> None:
    # KeyError alone would print its argument's repr
    assert str(MissingKeyError("nothing is stored there", where="a/b")) == "a/b: nothing is stored there"


def test_what_where_and_fix_survive_pickling_with_their_cause_dropped() -> None:
    try:
        raise StoreError("full", where="s", fix="free space") from OSError(errno.ENOSPC, "x")
    except StoreError as error:
        twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is StoreError
    assert (twin.what, twin.where, twin.fix) == ("full", "s", "free space")


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "no permission to use this path"),
        (errno.EPERM, "no permission to use this path"),
        (errno.EROFS, "the disk is read-only"),
        (errno.ENOTDIR, "a file exists where a folder is needed"),
        (errno.ENOENT, "there is no such file or folder"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_the_systems_errors_become_sentences(number: int, what: str) -> None:
    error = from_os_error(OSError(number, os.strerror(number)), where="/somewhere")
    assert error.what == what
    assert error.where == "/somewhere"


def test_a_real_errno_becomes_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        (tmp_path / "file" / "below").write_bytes(b"")
    assert from_os_error(caught.value, where="x").what == "a file exists where a folder is needed"


@pytest.mark.slow
def test_a_full_disk_of_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def known(write: Callable[[Path], object], path: Path) -> RaveDistError | None:
        try:
            write(path)
        except (OSError, RuntimeError) as error:  # whose traceback holds torch's open file
            return known_error(error)
        return None

    with tmpfs(tmp_path) as place:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        tensors = {"x": torch.zeros(1 << 19)}
        for write in (lambda path: path.write_bytes(bytes(2 << 20)), lambda path: torch.save(tensors, path)):
            error = known(write, place / "file")
            assert error is not None
            assert (error.what, error.where) == ("the disk is full", str(place))
            assert "TMPDIR" in error.fix
            (place / "file").unlink(missing_ok=True)
        gc.collect()


def test_what_people_cannot_read_is_no_known_error() -> None:
    assert known_error(OSError(errno.EIO, "Input/output error")) is None
    assert known_error(RuntimeError("no storage")) is None
    error = StoreError("the bucket does not exist")
    assert known_error(error) is error


def test_the_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, RaveDistError) and kind is not RaveDistError:
            line = next((line for line in errors.__doc__.splitlines() if f"── {kind.__name__} " in line), None)
            assert line is not None, f"{kind.__name__} is missing from the tree"
            if "(" in line:
                standard = line.split("(")[1].split(")")[0]
                assert standard in {base.__name__ for base in kind.__mro__}
