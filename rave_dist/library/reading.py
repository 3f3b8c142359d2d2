"""Reads a manifest: YAML without repeated keys, validated against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rave_dist.errors import LibraryError, MissingKeyError, from_os_error
from rave_dist.library.schema import LibraryManifest
from rave_dist.library.yaml_text import YamlError, YamlText
from rave_dist.storage.schemes import split
from rave_dist.storage.store import Store


def read_manifest(path: Path) -> LibraryManifest:
    """Reads and validates a manifest file.

    Raises:
        LibraryError: unreadable, not YAML, a repeated or unknown key, or a value of the wrong type.
    """
    written = read_yaml(path)
    return validate(written.value, where=str(path), written=written)


def read_stored_manifest(address: str) -> LibraryManifest:
    """Reads and validates a manifest in a store.

    Raises:
        LibraryError: as `read_manifest`.
        StoreError: the store cannot be read.
    """
    scheme, container, key = split(address)
    try:
        data = Store(f"{scheme}://{container}").read_bytes(key)
    except MissingKeyError as error:
        fix = "check the address of the library manifest"
        raise LibraryError("nothing is stored there", where=address, fix=fix) from error
    written = _parse(data, address)
    return validate(written.value, where=address, written=written)


def read_yaml(path: Path, *, kind: str = "library manifest") -> YamlText:
    """Reads a file of YAML.

    Args:
        path: of the file.
        kind: what messages call it.

    Raises:
        LibraryError: unreadable, not YAML, or a repeated key.
    """
    where = str(path)
    try:
        return _parse(path.read_bytes(), where, kind)
    except FileNotFoundError as error:
        raise LibraryError("there is no such file", where=where, fix=f"check the path of the {kind}") from error
    except IsADirectoryError as error:
        raise LibraryError("this is a folder", where=where, fix="give the YAML file in it") from error
    except OSError as error:
        raise from_os_error(error, where=where) from error


def _parse(data: bytes, where: str, kind: str = "library manifest") -> YamlText:
    try:
        text = data.decode("utf-8-sig")
        if b"\0" in data[:4]:  # UTF-16 or UTF-32 without a mark
            raise UnicodeDecodeError("utf-8", data, 0, 1, "not text")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fix = f"save it as UTF-8 in the editor, or give a YAML {kind}"
        raise LibraryError("not a text file in UTF-8", where=f"{where}, line {line}", fix=fix) from error
    try:
        return YamlText(text)
    except YamlError as error:
        raise LibraryError(error.what, where=f"{where}, line {error.line}", fix=error.fix) from error


def validate(value: Any, *, where: str, written: YamlText | None = None) -> LibraryManifest:
    """Validates a manifest's keys and values.

    Args:
        value: the manifest.
        where: what messages call it.
        written: its text, if it was read from one.

    Raises:
        LibraryError: an unknown key, or a value of the wrong type.
    """
    if not isinstance(value, dict) or not value.keys() & LibraryManifest.model_fields.keys():
        fix = "write one with rave-dist init FOLDER, or see README, Your own recordings"
        raise LibraryError(
            "a manifest has the keys name, store and instruments, and this has none",
            where=where,
            fix=f"write each key as `key: value`; {fix}" if isinstance(value, str) else fix,
        )
    try:
        return LibraryManifest.model_validate(value)
    except ValidationError as error:
        from rave_dist.library.messages import explain  # imported here: most manifests are valid

        raise explain(error, where, written) from error
