"""Settings of a run in a manifest: budget, checkpoints, recovery, initial weights, options.

The descriptions and examples of the keys are written only here; error messages, the README's table and the JSON Schema use
them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

Augmentation = Literal["mangle", "pitch", "mute", "compress", "gain", "polarity"]

STOCK_AUGMENTATIONS: dict[str, float] = {"mangle": 0.8}
"""The probability of each augmentation of RAVE's own chain."""

ComputeOption = Literal["tf32", "bf16-discriminator", "bf16", "fp16", "compile", "cuda-graphs", "fused-adam"]

EXCLUSIVE_OPTIONS: tuple[tuple[ComputeOption, ComputeOption], ...] = (
    ("bf16", "fp16"),
    ("bf16", "bf16-discriminator"),
    ("fp16", "bf16-discriminator"),
    ("fp16", "cuda-graphs"),  # the host reads the loss scale in every step
    ("compile", "cuda-graphs"),
)
"""Options that cannot be combined."""

NEED_CUDA: frozenset[ComputeOption] = frozenset({"tf32", "fp16", "cuda-graphs"})
"""Options that require an NVIDIA GPU."""

ONE_WORKER_OPTIONS: frozenset[ComputeOption] = frozenset({"compile", "cuda-graphs"})
"""Options that cannot be combined with several workers, which exchange values within a step."""

AudioFormat = Literal["keep", "flac", "wav"]
"""Output format of a conversion; ``keep`` is WAV for recordings in WAV and its relatives, FLAC for all others."""

LoudnessOf = Literal["file", "call"]
"""What gets the loudness of the recording: the whole file with one gain, or each call with its own."""

DEFAULT_FORMAT: AudioFormat = "keep"
DEFAULT_SEED = 0
DEFAULT_LATENT_NOISE = 1.0
"""Level of the noise around the latents: 1, as RAVE and the streaming file play, so that both are the same instrument."""

DEFAULT_CHUNK_SECONDS = 10.0
"""Default of a conversion, for the command line and for Python."""


class StrictRecord(BaseModel):
    """Base of hand-written records: frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def key(description: str, *examples: Any, without: str = "", default: Any = None, **constraints: Any) -> Any:
    """A key of the manifest, as a pydantic field.

    Args:
        description: one or two sentences without a final full stop; shown by editors and in the README.
        examples: values as in YAML, the usual one first.
        without: the meaning of an absent key, if the default does not show it.
        default: the value without the key; ``...`` for a key that is required.
        constraints: as of `pydantic.Field`.
    """
    extra: JsonDict | None = {"x-default": without} if without else None
    return Field(default, description=description, examples=list(examples), json_schema_extra=extra, **constraints)


def _as_number(value: Any) -> Any:
    """YAML reads ``1e6`` as a string, and ``yes`` as a boolean, which pydantic would accept as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "must be a number")
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def as_tuple(value: Any) -> Any:
    """Accepts a single text in place of a list."""
    return (value,) if isinstance(value, str) else value


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
Number = Annotated[float, BeforeValidator(_as_number)]
Whole = Annotated[int, BeforeValidator(_as_number)]
Text = Annotated[str, StringConstraints(min_length=1)]
# The type after ``json_schema_input_type`` is that of the manifest, the other that of the record.
Strings = Annotated[
    tuple[Text, ...],
    BeforeValidator(as_tuple, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)]),
    Field(min_length=1),
]


def _at_most_one(*keys: str) -> dict[str, Any]:
    return {"not": {"required": list(keys)}}


class Until(StrictRecord):
    """Early stopping: each phase ends when the held-out distance no longer decreases."""

    patience: Whole = key(
        "number of consecutive validations without an improvement that end a phase", 10, default=..., ge=1, le=1000
    )
    improvement: Number = key(
        "relative decrease of the held-out distance that counts as an improvement", 0.01, default=0.01, ge=0, lt=1
    )


class Budget(StrictRecord):
    """The training budget: hours, steps, or both, of which the first to be used up counts; upper limits with early stopping."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["hours"]}, {"required": ["steps"]}, {"required": ["until"]}]}
    )

    hours: Number | None = key("hours of training", 4, gt=0, le=10_000)
    steps: Whole | None = key("optimizer steps in both phases together", 200000, ge=2, le=100_000_000)
    until: Until | None = key(
        "early stopping: each phase ends when validation no longer improves; `hours` or `steps` are upper limits then",
        {"patience": 10},
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.hours is None and self.steps is None and self.until is None:
            raise ValueError("give hours or steps")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits an absent ``until``, which must not change the hash that identifies a run."""
        values: dict[str, Any] = standard(self)
        if self.until is None:
            values.pop("until", None)
        return values


class CheckpointPolicy(StrictRecord):
    """The interval of checkpoints, and how many are kept; a stopped run always saves one."""

    model_config = ConfigDict(json_schema_extra=_at_most_one("minutes", "steps"))

    minutes: Number | None = key("minutes between checkpoints", 10, without="`10`", gt=0)
    steps: Whole | None = key("steps between checkpoints", 1000, ge=1)
    keep: Whole = key("number of checkpoints that are kept", 2, default=2, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give either minutes or steps")
        return self

    @property
    def every_seconds(self) -> float | None:
        """Seconds between checkpoints; 600 by default, None where steps are given."""
        if self.steps is not None:
            return None
        return 600.0 if self.minutes is None else 60.0 * self.minutes


class Recovery(StrictRecord):
    """Rollback to the last checkpoint, with a lower learning rate, after a NaN or infinite loss or weight."""

    rate: Number = key("factor on the learning rate", 0.5, default=0.5, gt=0, lt=1)
    times: Whole = key("maximum number of rollbacks", 3, default=3, ge=1, le=100)


class Placement(StrictRecord):
    """Where a run may be on a cluster, and before which others it starts."""

    priority: Whole = key("runs with a larger one start first", 1, default=0, ge=-1000, le=1000)
    accelerator: str | None = key("the type of GPU, as Ray names it", "H100", without="any", min_length=1)
    labels: dict[str, str] = key("labels of the host", {"zone": "north"}, without="none", default={})


class BaseSpec(StrictRecord):
    """Initial weights: a published model, a stock RAVE run, or a joint base trained on the whole library."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["model"]},
                {"required": ["stock"]},
                {"required": ["train"], "properties": {"train": {"const": True}}},
            ]
        }
    )

    model: str | None = key("a published model: NAME or NAME@VERSION", "kompang", min_length=1)
    stock: str | None = key("the folder of a stock RAVE run, or one of its checkpoints", "runs/drums", min_length=1)
    resume: bool = key(
        "resume a stock run with its optimizers at its step; otherwise only its weights are used", True, default=False
    )
    ema: bool = key("use the averaged weights (EMA) of a stock run", True, default=False)
    train: bool = key("train a joint base on all instruments first; belongs in `defaults`", True, default=False)
    budget: Budget | None = key("budget of the joint base", {"hours": 4}, without="the library's budget")
    freeze_encoder: bool = key(
        "train only the decoder: instruments of one base then share its encoder, and conversions with several of them are "
        "faster, see docs/bases.md",
        True,
        default=False,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Accepts the name of a model in place of a mapping."""
        written = handler.resolve_ref_schema(handler(schema))
        return {"description": written.pop("description", ""), "anyOf": [{"type": "string", "minLength": 1}, written]}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum((self.model is not None, self.stock is not None, self.train)) != 1:
            raise ValueError("give one of: the name of a model, stock: the folder of a RAVE run, train: true")
        if self.budget is not None and not self.train:
            raise ValueError("budget requires train: true")
        if self.stock is None and (self.resume or self.ema):
            raise ValueError("resume and ema require stock: the folder of a RAVE run")
        if self.resume and self.freeze_encoder:
            raise ValueError("resume and freeze_encoder cannot be combined: the optimizers are those of all weights")
        if self.resume and self.ema:
            raise ValueError("resume and ema cannot be combined: the optimizers belong to the weights, not to their average")
        return self
