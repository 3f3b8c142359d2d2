"""Content ids: short hashes of everything that affects a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ID_LENGTH = 12
_BLOCK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """The canonical JSON of a value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        TypeError: a value without a JSON representation.
        ValueError: NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def content_id(value: Any) -> str:
    """A short id (12 hex digits) of any JSON value; equal values have equal ids."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:ID_LENGTH]


def hash_blocks(blocks: Iterable[bytes]) -> str:
    """sha256 (64 hex digits) of blocks of bytes."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def hash_file(path: Path | str) -> str:
    """sha256 (64 hex digits) of a local file, read in blocks of 1 MiB."""
    with open(path, "rb") as file:
        return hash_blocks(iter(lambda: file.read(_BLOCK_BYTES), b""))
