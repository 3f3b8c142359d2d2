"""Equal values have equal ids, different values different ones, whatever the order of keys, process or type of path."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.identity import ID_LENGTH, canonical_json, content_id, hash_blocks, hash_file

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


VALUES = VALUES.filter(_encodable)


def _turned(value: Any) -> Any:
    """The same value with the keys of every mapping written in the opposite order."""
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_says_the_same_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(VALUES)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(_turned(value)) == canonical_json(value)


@given(VALUES)
def test_canonical_json_of_what_was_read_back_is_the_same_text(value: Any) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@given(VALUES, VALUES)
def test_ids_differ_exactly_where_the_text_does(one: Any, other: Any) -> None:
    assert (content_id(one) == content_id(other)) == (canonical_json(one) == canonical_json(other))


@given(VALUES)
def test_an_id_is_twelve_hex_digits(value: Any) -> None:
    assert len(content_id(value)) == ID_LENGTH == 12
    assert set(content_id(value)) <= set("0123456789abcdef")


def test_ids_do_not_depend_on_the_process() -> None:
    value = {"b": [1, 2.5], "a": {"ü": None}}
    program = f"from rave_dist.identity import content_id; print(content_id({value!r}))"
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, capture_output=True, check=True
        )
        assert run.stdout.decode().strip() == content_id(value)


def test_an_id_stays_what_it_was() -> None:
    # The text that is hashed may never change: every store holds ids made of it.
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()
    assert content_id({}) == hashlib.sha256(b"{}").hexdigest()[:12] == "44136fa355b3"


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_has_no_word_for_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        content_id(value)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        content_id({"path": Path("/x")})


@given(st.lists(st.binary(max_size=50)))
def test_blocks_hash_as_their_whole(blocks: list[bytes]) -> None:
    assert hash_blocks(blocks) == hashlib.sha256(b"".join(blocks)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_hashes_as_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(i & 0xFF for i in range(size))
    (tmp_path / "f").write_bytes(data)
    assert hash_file(tmp_path / "f") == hash_file(str(tmp_path / "f")) == hashlib.sha256(data).hexdigest()
