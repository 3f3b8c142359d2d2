"""Reads a manifest: YAML without repeated keys, validated against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rave_dist.errors import LibraryError, from_os_error
from rave_dist.library.schema import LibraryManifest


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        LibraryError: unreadable, not YAML, or a repeated key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LibraryError("there is no such file", where=str(path), fix="check the path of the library manifest") from error
    except UnicodeDecodeError as error:
        raise LibraryError("not a text file in UTF-8", where=str(path), fix="give a YAML library manifest") from error
    except IsADirectoryError as error:
        raise LibraryError("this is a folder", where=str(path), fix="give the YAML file in it") from error
    except OSError as error:
        raise from_os_error(error, where=str(path)) from error
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise LibraryError(f"not valid YAML: {error}".replace("\n", " "), where=str(path), fix="fix that line") from error


def validate(value: Any, *, where: str) -> LibraryManifest:
    """Validates a manifest's keys and values.

    Raises:
        LibraryError: an unknown key, or a value of the wrong type.
    """
    if not isinstance(value, dict):
        raise LibraryError(
            "the manifest must be a mapping with name, store and instruments", where=where, fix="see README, The manifest"
        )
    try:
        return LibraryManifest.model_validate(value)
    except ValidationError as error:
        from rave_dist.library.messages import explain  # imported here: most manifests are valid

        raise explain(error, where) from error


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a repeated key; YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is written twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)
