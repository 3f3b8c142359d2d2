"""A manifest of conversions: its keys, which are those of `rave-dist convert`, and its reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails

from rave_dist.errors import LibraryError
from rave_dist.library.messages import explain
from rave_dist.library.paths import PathText, resolved
from rave_dist.library.reading import read_yaml
from rave_dist.library.schema import Paths
from rave_dist.library.yaml_text import YamlText
from rave_dist.options import StrictRecord, Strings, key
from rave_dist.records import ConversionParameters
from rave_dist.records.conversion_options import ConversionOptions

_REQUIRED = ("models", "inputs", "output")


class ConversionSettings(ConversionOptions):
    """One conversion, or the defaults of all; what is None is not set."""

    models: Strings | None = key(
        "the models: NAME or NAME@VERSION; `all` for all published ones", "rebana", ["rebana", "bells"]
    )
    inputs: Paths | None = key("files, folders, globs or s3:// prefixes", "field/dawn", ["field/dawn", "field/dusk"])
    output: PathText | None = key("a folder or s3:// prefix", "converted/dawn")
    page: PathText | None = key("an HTML file to write a page to", "dawn.html")


class ConversionManifest(StrictRecord):
    """The whole file."""

    defaults: ConversionSettings = key("what conversions have that do not say otherwise", default=ConversionSettings())
    conversions: Annotated[tuple[ConversionSettings, ...], Field(min_length=1)] = key(
        "the conversions", [{"models": "rebana", "inputs": "field/dawn", "output": "converted/dawn"}], default=...
    )


@dataclass(frozen=True)
class Conversion:
    """One conversion of a manifest with its defaults applied and its paths resolved; ``models`` None stands for all."""

    models: tuple[str, ...] | None
    inputs: tuple[str, ...]
    output: str
    parameters: ConversionParameters
    page: str | None
    where: str


def read_conversions(path: Path | str) -> tuple[Conversion, ...]:
    """Reads and validates a manifest of conversions; relative paths in it are relative to its folder.

    Raises:
        LibraryError: unreadable, not YAML, a repeated, unknown or missing key, or a value of the wrong type.
    """
    path = Path(os.path.expanduser(path))
    written = read_yaml(path, kind="manifest of conversions")
    if not isinstance(written.value, dict) or "conversions" not in written.value:
        raise LibraryError(
            "a manifest of conversions has the key conversions, and this has none",
            where=str(path),
            fix="write `conversions:`, and below it a list of models, inputs and output; see docs/conversion.md",
        )
    try:
        manifest = ConversionManifest.model_validate(written.value)
        given = [_merged(manifest.defaults, entry) for entry in manifest.conversions]
        if missing := list(_missing(given)):
            raise ValidationError.from_exception_data("conversions", missing)
    except ValidationError as error:
        raise explain(error, str(path), written, top=ConversionManifest) from error
    return tuple(_conversion(values, number, path, written) for number, values in enumerate(given))


def _merged(defaults: ConversionSettings, entry: ConversionSettings) -> ConversionSettings:
    said = [name for name in entry.model_fields_set if getattr(entry, name) is not None]
    return defaults.model_copy(update={name: getattr(entry, name) for name in said})


def _missing(given: list[ConversionSettings]) -> Iterator[InitErrorDetails]:
    for number, settings in enumerate(given):
        for name in _REQUIRED:
            if getattr(settings, name) is None:
                yield InitErrorDetails(type="missing", loc=("conversions", number, name), input=settings)


def _conversion(settings: ConversionSettings, number: int, path: Path, written: YamlText) -> Conversion:
    place = Path(os.path.abspath(path))
    models, inputs, output, page = settings.models, settings.inputs, settings.output, settings.page
    assert inputs is not None, "checked by _missing"
    assert output is not None, "checked by _missing"
    return Conversion(
        models=None if models == ("all",) else models,
        inputs=tuple(resolved(place, each) for each in inputs),
        output=resolved(place, output) + "/" * output.endswith("/"),
        parameters=settings.parameters(),
        page=resolved(place, page) if page else None,
        where=f"{path}, line {written.line(('conversions', number)) or 1}",
    )
