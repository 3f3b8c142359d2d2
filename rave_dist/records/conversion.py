"""Records of conversions: parameters, sources and outcome."""

from __future__ import annotations

from typing import Literal

from rave_dist.options import DEFAULT_FORMAT, DEFAULT_SEED, AudioFormat
from rave_dist.records.base import Record
from rave_dist.records.passed_over import PassedOver


class ConversionParameters(Record):
    """The parameters that determine the samples of a conversion.

    ``sample_rate`` and ``channels`` are those of the source if None. ``seed`` is for models with a noise generator.
    ``salvage`` converts the readable part of a damaged file.
    """

    sample_rate: int | None = None
    channels: int | None = None
    format: AudioFormat = DEFAULT_FORMAT
    seed: int = DEFAULT_SEED
    salvage: bool = False


class ConversionRequest(Record):
    """The request of a conversion: NAME@VERSION of the model, the parameters, and the address of the outputs."""

    model: str
    parameters: ConversionParameters
    output: str


class ConversionItem(Record):
    """The outcome of one source, an entry of the journal.

    ``seconds`` is the length of the output; ``source_fingerprint`` and ``output_tag`` detect later changes of the files without
    reading them.
    """

    source: str
    source_sha256: str
    source_fingerprint: str = ""
    output: str
    output_sha256: str | None = None
    output_tag: str = ""
    state: Literal["converted", "failed", "salvaged"]
    reason: str | None = None
    seconds: float = 0.0
    clipped_samples: int = 0


class ConversionRecord(Record):
    """The report of a conversion; ``seconds`` is the audio converted this time.

    ``passed_over`` counts the files and folders below the inputs that are not used; ``notes`` are remarks about the inputs.
    """

    id: str
    model: str
    parameters: ConversionParameters
    converted: int
    skipped: int
    failed: tuple[ConversionItem, ...]
    salvaged: tuple[ConversionItem, ...] = ()
    seconds: float
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    created_at: str
