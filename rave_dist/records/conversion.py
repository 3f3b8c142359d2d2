"""Records of conversions: parameters, sources and outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rave_dist.errors import ConversionError
from rave_dist.options import DEFAULT_FORMAT, DEFAULT_LATENT_NOISE, DEFAULT_SEED, AudioFormat, LoudnessOf
from rave_dist.records.base import Problem, Record
from rave_dist.records.latent_names import NamedLatent
from rave_dist.records.passed_over import PassedOver

_LARGEST_LEVEL = 1000
_RANGES = {
    "denoise": (0, 1, ""),
    "gate": (0, 100, " dB"),
    "skip_silence": (-200, 0, " dBFS"),
    "mix": (0, 1, ""),
    "only_above": (0, 1, ""),
}


def _changed(record: Record, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """The fields that differ from their defaults, so that new ones change no identity."""
    fields = type(record).model_fields
    values = standard(record).items()
    return {
        name: value for name, value in values if getattr(record, name) != fields[name].get_default(call_default_factory=True)
    }


class Treatment(Record):
    """What is done to a recording before the model, and to the result after it; by default nothing.

    Only what differs from the default is stored, so that new fields change no identity.

    Attributes:
        denoise: share of the background noise that is removed before the model, 0 to 1.
        gate: dB above the noise floor of the recording, below which the output is silent.
        skip_silence: dBFS, below which the output is silent.
        mix: share of the model's output, 0 to 1; the rest is the recording.
        match_loudness: ``file`` gives the output the integrated loudness of the recording; ``call`` gives each call its own.
        only_above: the output is silent where the recording is less familiar to the model, 0 to 1.
    """

    denoise: float = 0.0
    gate: float | None = None
    skip_silence: float | None = None
    mix: float = 1.0
    match_loudness: LoudnessOf | None = None
    only_above: float | None = None

    def check(self) -> None:
        """Checks the values.

        Raises:
            ConversionError: one is NaN, infinite or out of range.
        """
        for name, (least, most, unit) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # NaN compares as false
                option = f"--{name.replace('_', '-')}"
                raise ConversionError(
                    f"must be between {least} and {most}{unit}, not {value:g}", where=option, fix="correct it"
                )

    @model_serializer(mode="wrap")
    def _without_defaults(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _changed(self, standard)


class Controls(Record):
    """What is changed inside the model; by default nothing. Only what differs from the default is stored.

    Attributes:
        noise: level of the model's noise generator, if it has one; 1 is as trained, 0 leaves it out.
        temperature: factor on all latents, which for variational models lie around the mean of the training set.
        latents: (scale, bias) of single latents, which count from 1: a value becomes scale times it plus bias, after the
            temperature.
        named: changes of latents by their names in the card, in standard deviations; above 0 for more of it.
    """

    noise: float = 1.0
    temperature: float = 1.0
    latents: dict[int, tuple[float, float]] = Field(default_factory=dict)
    named: dict[str, float] = Field(default_factory=dict)

    def resolved(self, names: Mapping[str, NamedLatent], *, where: str) -> Controls:
        """The same with changes of the latents that have these names in a model, in place of names.

        Args:
            names: of the model's latents.
            where: the model.

        Raises:
            ConversionError: the model has no latent of a name.
        """
        latents = dict(self.latents)
        for name, amount in self.named.items():
            known = names.get(name)
            if known is None:
                fix = f"use {', '.join(names)}, or --latent" if names else "use --latent, which takes numbers"
                raise ConversionError(f"no latent of this model follows {name}", where=where, fix=fix)
            scale, bias = latents.get(known.latent, (1.0, 0.0))
            latents[known.latent] = (scale, bias + amount * math.copysign(known.deviation, known.correlation))
        return self.model_copy(update={"latents": latents, "named": {}})

    def check(self, latents: int, *, where: str) -> None:
        """Checks the values for a model.

        Args:
            latents: of the model.
            where: the model.

        Raises:
            ConversionError: a value is NaN, infinite or negative, or there is no such latent.
        """
        for name in ("noise", "temperature"):
            if not 0 <= getattr(self, name) <= _LARGEST_LEVEL:  # NaN compares as false
                what = f"must be between 0 and {_LARGEST_LEVEL}, not {getattr(self, name):g}"
                raise ConversionError(what, where=f"--{name}", fix="correct it; 1 is as trained")
        for number, change in self.latents.items():
            if not 1 <= number <= latents:
                raise ConversionError(f"there is no latent {number}", where=where, fix=f"use 1 to {latents}")
            if not all(map(math.isfinite, change)):
                raise ConversionError("scale and bias must be finite", where=f"--latent {number}", fix="correct them")

    @model_serializer(mode="wrap")
    def _without_defaults(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _changed(self, standard)


class AllParameters(TypedDict, total=False):
    """The parameters of a conversion by name, those of `Treatment` and `Controls` among them."""

    sample_rate: int | None
    channels: int | None
    format: AudioFormat
    seed: int
    latent_noise: float
    salvage: bool
    denoise: float
    gate: float | None
    skip_silence: float | None
    mix: float
    match_loudness: LoudnessOf | None
    only_above: float | None
    noise: float
    temperature: float
    latents: Mapping[int, tuple[float, float]]
    named: Mapping[str, float]


class ConversionParameters(Record):
    """The parameters that determine the samples of a conversion.

    ``sample_rate`` and ``channels`` are those of the source if None. ``seed`` picks all noise; ``latent_noise`` is the level of
    the noise around the latents. ``salvage`` converts the readable part of a damaged file.
    """

    sample_rate: int | None = None
    channels: int | None = None
    format: AudioFormat = DEFAULT_FORMAT
    seed: int = DEFAULT_SEED
    latent_noise: float = DEFAULT_LATENT_NOISE
    salvage: bool = False
    treatment: Treatment = Treatment()
    controls: Controls = Controls()

    @classmethod
    def of(cls, **options: Unpack[AllParameters]) -> ConversionParameters:
        """The parameters of options: those of treatment and controls are given like the others."""
        if unknown := options.keys() - AllParameters.__annotations__.keys():
            raise TypeError(f"no parameters of a conversion: {', '.join(sorted(unknown))}")
        apart = {
            name: {option: value for option, value in options.items() if option in record.model_fields}
            for name, record in (("treatment", Treatment), ("controls", Controls))
        }
        own = {option: value for option, value in options.items() if option in cls.model_fields}
        return cls.model_validate({**own, **apart})

    @property
    def changes(self) -> dict[str, str]:
        """In words, what controls and treatment change, by the names of their options."""
        edits = {f"latent {n}": f"scale {scale:g} bias {bias:g}" for n, (scale, bias) in self.controls.latents.items()}
        values = {**self.controls.to_json(), **self.treatment.to_json()}
        kept = {name: value for name, value in values.items() if name not in ("latents", "named")}
        return {**{name: value if isinstance(value, str) else f"{value:g}" for name, value in kept.items()}, **edits}

    @model_serializer(mode="wrap")
    def _without_no_change(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits what changes nothing, and must not change the hash that identifies a conversion."""
        values: dict[str, Any] = standard(self)
        for name, default in (("treatment", Treatment()), ("controls", Controls())):
            if getattr(self, name) == default:
                values.pop(name, None)
        return values


class ConversionRequest(Record):
    """The request of a conversion: NAME@VERSION of the model, the parameters, and the address of the outputs."""

    model: str
    parameters: ConversionParameters
    output: str


class Preservation(Record):
    """What a result keeps of its recording's pitch and rhythm; None where the recording has none, or it was not measured.

    Attributes:
        pitch_cents: median deviation in cents where recording and result have a pitch.
        pitch_kept: share of the recording's frames with a pitch that have one in the result.
        onset_f_measure: F-measure of the onsets, 1 if each has its counterpart within 50 ms.
    """

    pitch_cents: float | None = None
    pitch_kept: float | None = None
    onset_f_measure: float | None = None

    @property
    def in_words(self) -> str:
        """What was measured, empty if nothing was."""
        return ", ".join(
            [
                *([] if self.pitch_cents is None else [f"pitch to {self.pitch_cents:.0f} cents"]),
                *([] if self.pitch_kept is None else [f"{self.pitch_kept:.0%} of the frames with a pitch"]),
                *([] if self.onset_f_measure is None else [f"onsets with an F-measure of {self.onset_f_measure:.2f}"]),
            ]
        )


class ConversionItem(Preservation):
    """The outcome of one source, an entry of the journal.

    Attributes:
        source_fingerprint: with ``output_tag``, detects later changes of the files without reading them.
        reason: why it failed, or the damage of a salvaged source; ``fix`` is what to do about it.
        seconds: length of the output.
        clipped_samples: samples of all channels that were over full scale and are limited to it in the output.
        clipped_seconds: time at which any channel was.
        over_db: by how much the loudest of them was over full scale.
        silent: set if the output is silent and the recording is not.
        clipped: set if the output is clipped and the recording is not.
        familiarity: mean over all half seconds, 0 to 1; None if the model's card has no reference for it.
        out_of_depth_seconds: time with a familiarity below `OUT_OF_DEPTH`.
        scores: the familiarity of each half second in percent, two digits each, 99 at most.
        other_format: set if the output is a WAV file because FLAC cannot hold it.
        notes: remarks about an intact source: a wrong header, further tracks; and about the loudness of the output.
        carried: which metadata the output has: kinds of chunks, and names of tags.
        not_carried: which of the source's metadata it does not have, and why.
    """

    source: str
    source_sha256: str
    source_fingerprint: str = ""
    output: str
    output_sha256: str | None = None
    output_tag: str = ""
    state: Literal["converted", "failed", "salvaged"]
    reason: str | None = None
    fix: str = ""
    seconds: float = 0.0
    clipped_samples: int = 0
    clipped_seconds: float = 0.0
    over_db: float = 0.0
    silent: Problem | None = None
    clipped: Problem | None = None
    familiarity: float | None = None
    out_of_depth_seconds: float = 0.0
    scores: str = ""
    other_format: str | None = None
    notes: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()

    @property
    def is_out_of_depth(self) -> bool:
        """Whether most of the recording is unlike the model's training set."""
        return self.out_of_depth_seconds > self.seconds / 2

    @property
    def without_scores(self) -> ConversionItem:
        """The same without the scores of a long recording, which only the journal has."""
        return self.model_copy(update={"scores": ""}) if self.scores else self

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Failure or damage, silence and clipping: what makes a conversion incomplete."""
        reason = None if self.state == "converted" else Problem(what=self.reason or self.state, fix=self.fix)
        return tuple(problem for problem in (reason, self.silent, self.clipped) if problem is not None)


class ConversionRecord(Record):
    """The report of a conversion; ``seconds`` is the audio converted this time.

    ``silent``, ``clipped`` and ``other_format`` have the items of which `ConversionItem` says so, earlier conversions included.
    ``out_of_depth`` counts the items that are out of the model's depth, ``passed_over`` the files and folders below the inputs
    that are not used; ``notes`` are remarks about the inputs and the sources; ``preserved`` has the medians over all files,
    earlier conversions included.
    """

    id: str
    model: str
    parameters: ConversionParameters
    converted: int
    skipped: int
    failed: tuple[ConversionItem, ...]
    salvaged: tuple[ConversionItem, ...] = ()
    silent: tuple[ConversionItem, ...] = ()
    clipped: tuple[ConversionItem, ...] = ()
    other_format: tuple[ConversionItem, ...] = ()
    out_of_depth: int = 0
    seconds: float
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    preserved: Preservation = Preservation()
    created_at: str

    @property
    def is_complete(self) -> bool:
        """Whether every source has an intact output: none is missing, failed, was damaged, became silent or was clipped."""
        missing = any(entry.missing for entry in self.passed_over)
        return not (missing or self.failed or self.salvaged or self.silent or self.clipped)

    @property
    def items_with_problems(self) -> tuple[ConversionItem, ...]:
        """The items of the lists above with problems, each once, failed ones first."""
        return tuple({item.output: item for item in (*self.failed, *self.salvaged, *self.silent, *self.clipped)}.values())


def remarks(records: Sequence[ConversionRecord]) -> tuple[str, ...]:
    """The notes of conversions of the same sources, each once; those of some of the models with their names."""
    models: dict[str, list[str]] = {}
    for record in records:
        for note in dict.fromkeys(record.notes):
            models.setdefault(note, []).append(record.model)
    return tuple(note if len(of) == len(records) else f"{note} ({', '.join(of)})" for note, of in models.items())
