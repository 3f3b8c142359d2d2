"""Errors say what, where and the fix, and do so after crossing a process border."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from rave_dist import errors
from rave_dist.errors import MissingKeyError, RaveDistError, StoreError, from_os_error


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
        (errno.EROFS, "no permission to use this path"),
        (errno.ENOTDIR, "a file exists where a folder is needed"),
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


def test_the_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, RaveDistError) and kind is not RaveDistError:
            line = next((line for line in errors.__doc__.splitlines() if f"── {kind.__name__} " in line), None)
            assert line is not None, f"{kind.__name__} is missing from the tree"
            if "(" in line:
                standard = line.split("(")[1].split(")")[0]
                assert standard in {base.__name__ for base in kind.__mro__}
