"""The options of a conversion as people write them: in a manifest of conversions, in a request, in a command."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from rave_dist.errors import ConversionError
from rave_dist.options import AudioFormat, LoudnessOf, Number, StrictRecord, Strings, key
from rave_dist.records.conversion import ConversionParameters

Key = TypeVar("Key", int, str)
Change = TypeVar("Change")


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


def changes(read: Callable[[str], tuple[Key, Change]], texts: Iterable[str]) -> dict[Key, Change]:
    """What `latent_change` or `named_change` reads in several texts.

    Raises:
        ConversionError: one cannot be read, or two are of the same latent.
    """
    found: dict[Key, Change] = {}
    for text in texts:
        key, change = read(text)
        if key in found:
            raise ConversionError(f"{key} is changed twice", where=text, fix="write one change of it")
        found[key] = change
    return found


def _written_as(read: Callable[[str], tuple[Key, Change]]) -> AfterValidator:
    """Refuses texts that cannot be read, with the fix."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            changes(read, texts)
        except ConversionError as error:
            raise PydanticCustomError("change", "{what}", {"what": error.what, "fix": error.fix}) from error
        return texts

    return AfterValidator(check)


_Level = Annotated[Number, Field(ge=0, le=1000)]
_Share = Annotated[Number, Field(ge=0, le=1)]


class ConversionOptions(StrictRecord):
    """The options that determine the samples of a conversion, with their bounds; one that is None is not set."""

    format: AudioFormat | None = key("of the results; keep: WAV stays WAV, all else becomes FLAC", "flac", without="`keep`")
    sample_rate: Annotated[int, Field(ge=8000, le=192_000)] | None = key(
        "of the results, in Hz", 48000, without="that of each recording"
    )
    channels: Annotated[int, Field(ge=1, le=8)] | None = key("of the results", 1, without="those of each recording")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = key("picks all noise", 1, without="`0`")
    latent_noise: _Level | None = key("noise around the latents", 0, without="`1`")
    noise: _Level | None = key("level of the model's noise generator", 0.5, without="`1`")
    temperature: _Level | None = key("factor on all latents", 0.7, without="`1`")
    latent: Annotated[Strings, _written_as(latent_change)] | None = key(
        "changes of single latents, from 1", "3=scale:1.2,bias:-0.1", ["1=scale:1.2", "3=bias:-0.1"]
    )
    named: Annotated[Strings, _written_as(named_change)] | None = key(
        "changes of latents by their names", "loudness=+0.5", ["loudness=+0.5", "pitch=-1"]
    )
    denoise: _Share | None = key("share of the background noise that is removed", 1, without="`0`")
    gate: Annotated[Number, Field(ge=0, le=100)] | None = key("dB above the noise floor, below which results are silent", 12)
    skip_silence: Annotated[Number, Field(ge=-200, le=0)] | None = key("dBFS, below which results are silent", -90)
    mix: _Share | None = key("share of the model's output", 0.8, without="`1`")
    only_above: _Share | None = key("familiarity, below which results are silent", 0.5)
    match_loudness: LoudnessOf | None = key(
        "gives the whole file, or each call, the loudness that it has in the recording", "file", "call"
    )
    salvage: bool | None = key("whether the readable part of damaged files is converted", True, without="`false`")

    def parameters(self) -> ConversionParameters:
        """The record that identifies conversions, with the defaults of options that are not set."""
        written = self.model_dump(include=set(ConversionOptions.model_fields), exclude_none=True)
        changed: dict[str, Any] = {
            "latents": changes(latent_change, written.pop("latent", ())),
            "named": changes(named_change, written.pop("named", ())),
        }
        return ConversionParameters.of(**written, **changed)
