"""The keys of the manifest as data (path, description, examples), read from the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rave_dist.library.schema import HOUSE_DEFAULTS, Instrument, LibraryManifest, Settings
from rave_dist.options import StrictRecord

Location = Sequence[int | str]
"""Keys and indices from the top of a manifest to a value, as pydantic reports them."""


@dataclass(frozen=True)
class Key:
    """One key of the manifest.

    Attributes:
        path: the names of the enclosing keys and its own: ``("budget", "hours")``; those of ``defaults`` and of instruments are
            omitted.
        field: its definition.
    """

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """The key's name."""
        return self.path[-1]

    @property
    def description(self) -> str:
        """Its description."""
        return self.field.description or ""

    @property
    def examples(self) -> tuple[str, ...]:
        """Lines of YAML."""
        return tuple(f"{self.name}: {in_yaml(example)}" for example in self.field.examples or ())

    @property
    def default(self) -> str:
        """The value of an absent key."""
        extra = self.field.json_schema_extra
        if isinstance(extra, dict):
            return str(extra["x-default"])
        if self.field.is_required():
            return "required"
        value = getattr(HOUSE_DEFAULTS, self.name) if len(self.path) == 1 else self.field.default
        return "" if value is None else f"`{in_yaml(_plain(value))}`"


def all_keys() -> Iterator[Key]:
    """All keys without repeats: those of the manifest, of an instrument and of ``defaults``, and nested ones."""
    for name, field in LibraryManifest.model_fields.items():
        yield Key((name,), field)
    shown: set[type[StrictRecord]] = set()
    for name in sorted(Instrument.model_fields, key=lambda name: name in Settings.model_fields):
        yield from _with_inner(Key((name,), Instrument.model_fields[name]), shown)


def _with_inner(key: Key, shown: set[type[StrictRecord]]) -> Iterator[Key]:
    """A key and its nested keys, unless they were listed before."""
    yield key
    inner = _record_in(key.field.annotation)
    if inner is not None and inner not in shown:
        shown.add(inner)
        for name, field in inner.model_fields.items():
            yield from _with_inner(Key((*key.path, name), field), shown)


def known_keys(location: Location, top: type[BaseModel] = LibraryManifest) -> tuple[str, ...]:
    """The keys that are allowed at the last part of a location in a manifest of the kind ``top``."""
    return tuple(_walk(location[:-1], top)[0].model_fields)


def example(location: Location, top: type[BaseModel] = LibraryManifest) -> str:
    """An example of the key at a location, or of the nearest enclosing one; empty if there is none."""
    found = _walk(location, top)[1]
    return ", or ".join(found.examples) if found is not None else ""


def _walk(location: Location, top: type[BaseModel]) -> tuple[type[BaseModel], Key | None]:
    """The innermost model at a location, and the innermost key."""
    model = top
    found: Key | None = None
    parts = iter(location)
    for part in parts:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        found = Key((str(part),), field)
        inner = _record_in(field.annotation)
        if inner is None:
            break
        model = inner
        if get_origin(field.annotation) in (dict, tuple):
            next(parts, None)  # the name of an instrument, or the number of a conversion
    return model, found


def _record_in(annotation: Any) -> type[StrictRecord] | None:
    """The record in a type: ``Budget`` in ``Budget | None``, ``Instrument`` in ``dict[str, Instrument]``."""
    if isinstance(annotation, type) and issubclass(annotation, StrictRecord):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _record_in(inner)) is not None), None)


def in_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """A default as YAML values: the fields of a record that are set, and a sequence of one value as that value."""
    if isinstance(value, BaseModel):
        return {name: _plain(inner) for name, inner in value.model_dump(mode="json", exclude_none=True).items()}
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
