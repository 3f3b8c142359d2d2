"""What a person says of a run: how long, on what, computed how, saved when, what after a failure. Written in a manifest."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

Augmentation = Literal["mangle", "pitch", "mute", "compress", "gain", "polarity"]

STOCK_AUGMENTATIONS: dict[Augmentation, float] = {"mangle": 0.8}
"""The probability of each augmentation of RAVE's own chain."""

ComputeOption = Literal["tf32", "bf16-discriminator", "bf16", "fp16", "compile", "cuda-graphs", "fused-adam"]

EXCLUSIVE_OPTIONS: tuple[tuple[ComputeOption, ComputeOption], ...] = (
    ("bf16", "fp16"),
    ("bf16", "bf16-discriminator"),
    ("fp16", "bf16-discriminator"),
    ("fp16", "cuda-graphs"),  # the loss scale is looked at by the host in every step
    ("compile", "cuda-graphs"),
)
"""Options that cannot be taken together."""

NEED_CUDA: frozenset[ComputeOption] = frozenset({"tf32", "fp16", "cuda-graphs"})
"""Options that only NVIDIA GPUs have."""


class StrictRecord(BaseModel):
    """Base of what people write by hand: frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_number(value: Any) -> Any:
    """YAML reads ``1e6`` as a text, and ``yes`` as a truth value that pydantic would take for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "a number is needed")
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
Number = Annotated[float, BeforeValidator(_as_number)]
Whole = Annotated[int, BeforeValidator(_as_number)]


class Until(StrictRecord):
    """Each phase ends when so many validations in a row did not bring the held-out distance down by ``improvement`` (a share of
    it)."""

    patience: Whole = Field(ge=1, le=1000)
    improvement: Number = Field(default=0.01, ge=0, lt=1)


class Budget(StrictRecord):
    """How long to train: wall-clock hours or optimizer steps, one of them at most; or until validation no longer improves, and
    then hours or steps say when at the latest."""

    hours: Number | None = Field(default=None, gt=0, le=10_000)
    steps: Whole | None = Field(default=None, ge=2, le=100_000_000)
    until: Until | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.hours is None) == (self.steps is None) and (self.hours is not None or self.until is None):
            raise ValueError("give either hours or steps")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs of before ``until`` was known keep their identity, which is a hash of this."""
        values: dict[str, Any] = standard(self)
        if self.until is None:
            values.pop("until", None)
        return values


class CheckpointPolicy(StrictRecord):
    """When a run saves itself: every so many minutes or steps; it always does when it is stopped. ``keep`` is how many
    checkpoints stay."""

    minutes: Number | None = Field(default=None, gt=0)
    steps: Whole | None = Field(default=None, ge=1)
    keep: Whole = Field(default=2, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give either minutes or steps")
        return self

    @property
    def every_seconds(self) -> float | None:
        """Seconds between checkpoints; 600 when nothing was said, None when steps were."""
        if self.steps is not None:
            return None
        return 600.0 if self.minutes is None else 60.0 * self.minutes


class Recovery(StrictRecord):
    """After a loss or a weight that is not finite a run goes on from its last checkpoint with ``rate`` times the learning rate,
    up to ``times`` times."""

    rate: Number = Field(default=0.5, gt=0, lt=1)
    times: Whole = Field(default=3, ge=1, le=100)


class BaseSpec(StrictRecord):
    """What an instrument starts from: a published model (NAME or NAME@VERSION), the folder of a stock RAVE run, or, with
    ``train``, a model that is first trained on all of the library's instruments, for as long as ``budget`` says.

    Of a stock run ``ema`` takes the averaged weights that it kept, and ``resume`` its optimizers and its step too, so that
    the run goes on where stock RAVE stopped.
    """

    model: str | None = Field(default=None, min_length=1)
    stock: str | None = Field(default=None, min_length=1)
    resume: bool = False
    ema: bool = False
    train: bool = False
    budget: Budget | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum((self.model is not None, self.stock is not None, self.train)) != 1:
            raise ValueError("give one of: the name of a model, stock: the folder of a RAVE run, train: true")
        if self.budget is not None and not self.train:
            raise ValueError("budget is for train: true")
        if self.stock is None and (self.resume or self.ema):
            raise ValueError("resume and ema are for stock: the folder of a RAVE run")
        if self.resume and self.ema:
            raise ValueError("a run goes on from the weights that its optimizers know, not from averaged ones")
        return self
