"""A manifest of conversions: its keys, which are those of `rave-dist convert`, and its reading."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from rave_dist.errors import ConversionError, LibraryError
from rave_dist.library.messages import explain
from rave_dist.library.paths import PathText, resolved
from rave_dist.library.reading import read_yaml
from rave_dist.library.schema import Paths, Strings
from rave_dist.library.yaml_text import YamlText
from rave_dist.options import AudioFormat, Number, StrictRecord, key
from rave_dist.records import Controls, ConversionParameters, Treatment

_REQUIRED = ("models", "inputs", "output")


def latent_change(text: str) -> tuple[int, tuple[float, float]]:
    """The number of a latent with its scale and bias, written ``N=scale:S,bias:B``, of which one part may be missing.

    Raises:
        ConversionError: it is written differently.
    """
    number, _, parts = text.partition("=")
    named = [part.partition(":") for part in parts.split(",")]
    try:
        values = {name.strip(): float(value) for name, _, value in named}
        if len(values) < len(named) or not values.keys() <= {"scale", "bias"}:
            raise ValueError(text)
        return int(number), (values.get("scale", 1.0), values.get("bias", 0.0))
    except ValueError as error:
        raise ConversionError(
            f"{text!r} is not a change of a latent", where="--latent", fix="write it as 3=scale:1.2,bias:-0.1"
        ) from error


def named_change(text: str) -> tuple[str, float]:
    """The name of a latent with an amount, written ``NAME=+0.5``.

    Raises:
        ConversionError: it is written differently.
    """
    name, _, amount = text.partition("=")
    try:
        value = float(amount)
        if not name.strip() or not math.isfinite(value):
            raise ValueError(text)
    except ValueError as error:
        raise ConversionError(f"{text!r} is not a change by name", where="--set", fix="write it as loudness=+0.5") from error
    return name.strip(), value


def _written_as(read: Callable[[str], object], what: str) -> AfterValidator:
    """Refuses texts that cannot be read, with the fix."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            try:
                read(text)
            except ConversionError as error:
                raise PydanticCustomError("change", "is not {what}", {"what": what, "fix": error.fix}) from error
        return texts

    return AfterValidator(check)


class ConversionSettings(StrictRecord):
    """One conversion, or the defaults of all; a parameter that is None is not set."""

    models: Strings | None = key(
        "the models: NAME or NAME@VERSION; `all` for all published ones", "rebana", ["rebana", "bells"]
    )
    inputs: Paths | None = key("files, folders, globs or s3:// prefixes", "field/dawn", ["field/dawn", "field/dusk"])
    output: PathText | None = key("a folder or s3:// prefix", "converted/dawn")
    format: AudioFormat | None = key("of the results", "flac")
    sample_rate: Annotated[int, Field(ge=8000, le=192_000)] | None = key("of the results, in Hz", 48000)
    channels: Annotated[int, Field(ge=1, le=8)] | None = key("of the results", 1)
    seed: Annotated[int, Field(ge=0)] | None = key("picks all noise", 1)
    latent_noise: Annotated[Number, Field(ge=0, le=1000)] | None = key("noise around the latents", 0)
    noise: Annotated[Number, Field(ge=0, le=1000)] | None = key("level of the model's noise generator", 0.5)
    temperature: Annotated[Number, Field(ge=0, le=1000)] | None = key("factor on all latents", 0.7)
    latent: Annotated[Strings, _written_as(latent_change, "a change of a latent")] | None = key(
        "changes of single latents, from 1", "3=scale:1.2,bias:-0.1", ["1=scale:1.2", "3=bias:-0.1"]
    )
    denoise: Annotated[Number, Field(ge=0, le=1)] | None = key("share of the background noise that is removed", 1)
    gate: Annotated[Number, Field(ge=0, le=100)] | None = key("dB above the noise floor, below which results are silent", 12)
    skip_silence: Annotated[Number, Field(ge=-200, le=0)] | None = key("dBFS, below which results are silent", -90)
    mix: Annotated[Number, Field(ge=0, le=1)] | None = key("share of the model's output", 0.8)
    named: Annotated[Strings, _written_as(named_change, "a change by name")] | None = key(
        "changes of latents by their names", "loudness=+0.5", ["loudness=+0.5", "pitch=-1"]
    )
    only_above: Annotated[Number, Field(ge=0, le=1)] | None = key("familiarity, below which results are silent", 0.5)
    match_loudness: bool | None = key("whether each result gets the loudness of its recording", True)
    salvage: bool | None = key("whether the readable part of damaged files is converted", True)
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


def _merged(defaults: ConversionSettings, entry: ConversionSettings) -> dict[str, Any]:
    return {**defaults.model_dump(exclude_none=True), **entry.model_dump(exclude_none=True)}


def _missing(given: list[dict[str, Any]]) -> Iterator[InitErrorDetails]:
    for number, values in enumerate(given):
        for name in _REQUIRED:
            if name not in values:
                yield InitErrorDetails(type="missing", loc=("conversions", number, name), input=values)


def _conversion(values: dict[str, Any], number: int, path: Path, written: YamlText) -> Conversion:
    treatment = Treatment(**{name: values[name] for name in Treatment.model_fields if name in values})
    named = dict(map(named_change, values.get("named", ())))
    latents = dict(map(latent_change, values.get("latent", ())))
    levels = {name: values[name] for name in ("noise", "temperature") if name in values}
    controls = Controls(**levels, latents=latents, named=named)
    parameters = {name: values[name] for name in ConversionParameters.model_fields if name in values}
    place = Path(os.path.abspath(path))
    return Conversion(
        models=None if values["models"] == ("all",) else values["models"],
        inputs=tuple(resolved(place, each) for each in values["inputs"]),
        output=resolved(place, values["output"]) + "/" * values["output"].endswith("/"),
        parameters=ConversionParameters(**parameters, treatment=treatment, controls=controls),
        page=resolved(place, values["page"]) if "page" in values else None,
        where=f"{path}, line {written.line(('conversions', number)) or 1}",
    )
