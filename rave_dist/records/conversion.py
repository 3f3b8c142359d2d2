"""Records of conversions: parameters, sources and outcome."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from rave_dist.errors import ConversionError
from rave_dist.options import DEFAULT_FORMAT, DEFAULT_LATENT_NOISE, DEFAULT_SEED, AudioFormat
from rave_dist.records.base import Problem, Record
from rave_dist.records.passed_over import PassedOver

_RANGES = {"denoise": (0, 1, ""), "gate": (0, 100, " dB"), "skip_silence": (-200, 0, " dBFS"), "mix": (0, 1, "")}


class Treatment(Record):
    """What is done to a recording before the model, and to the result after it; by default nothing.

    Only what differs from the default is stored, so that new fields change no identity.

    Attributes:
        denoise: share of the background noise that is removed before the model, 0 to 1.
        gate: dB above the noise floor of the recording, below which the output is silent.
        skip_silence: dBFS, below which the output is silent.
        mix: share of the model's output, 0 to 1; the rest is the recording.
        match_loudness: gives the output the integrated loudness of the recording.
    """

    denoise: float = 0.0
    gate: float | None = None
    skip_silence: float | None = None
    mix: float = 1.0
    match_loudness: bool = False

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
        fields = type(self).model_fields
        return {name: value for name, value in standard(self).items() if value != fields[name].default}


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

    @model_serializer(mode="wrap")
    def _without_no_treatment(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits a treatment that does nothing, which must not change the hash that identifies a conversion."""
        values: dict[str, Any] = standard(self)
        if self.treatment == Treatment():
            values.pop("treatment", None)
        return values


class ConversionRequest(Record):
    """The request of a conversion: NAME@VERSION of the model, the parameters, and the address of the outputs."""

    model: str
    parameters: ConversionParameters
    output: str


class ConversionItem(Record):
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
    other_format: str | None = None
    notes: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Failure or damage, silence and clipping: what makes a conversion incomplete."""
        reason = None if self.state == "converted" else Problem(what=self.reason or self.state, fix=self.fix)
        return tuple(problem for problem in (reason, self.silent, self.clipped) if problem is not None)


class ConversionRecord(Record):
    """The report of a conversion; ``seconds`` is the audio converted this time.

    ``silent``, ``clipped`` and ``other_format`` have the items of which `ConversionItem` says so, earlier conversions included.
    ``passed_over`` counts the files and folders below the inputs that are not used; ``notes`` are remarks about
    the inputs and the sources.
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
    seconds: float
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
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
