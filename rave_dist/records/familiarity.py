"""What a model's training material is like, so that it can be said how far another sound is from it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rave_dist.records.base import Record

Finite = Annotated[float, Field(allow_inf_nan=False)]

OUT_OF_DEPTH = 0.5
"""A half second with a lower familiarity is further from the training set than 95 % of the held-out audio."""


class FamiliarityReference(Record):
    """Mean and covariance of the features of half seconds of a model's training audio, and how far held-out audio is from them.

    The features are those of `rave_dist.audio.metrics.familiarity`: first of the latents, then of the mel bands.

    Attributes:
        seconds: training audio, from all over the dataset.
        held_out_seconds: held-out audio.
        mean: of each feature.
        covariance: its lower triangle, by rows.
        reach: the distance that 95 % of the half seconds of held-out audio do not exceed.
    """

    seconds: float
    held_out_seconds: float
    mean: tuple[Finite, ...] = Field(max_length=1024)
    covariance: tuple[tuple[Finite, ...], ...] = Field(max_length=1024)
    reach: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_triangle(self) -> Self:
        if [len(row) for row in self.covariance] != list(range(1, len(self.mean) + 1)):
            raise PydanticCustomError("triangle", "the covariance is the lower triangle of a matrix as large as the mean")
        return self
