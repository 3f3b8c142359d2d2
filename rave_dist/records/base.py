"""What all records have in common: frozen, JSON on disk; no torch, no Ray, no Arrow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from rave_dist.errors import RaveDistError


def now() -> str:
    """The present moment as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Record(BaseModel):
    """Base of all records: frozen; keys that a newer version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json")


class Problem(Record):
    """What is wrong and the smallest fix."""

    what: str
    fix: str = ""

    @staticmethod
    def of(error: RaveDistError) -> Problem:
        """An error as a record keeps it: place and message in one sentence, and the fix."""
        return Problem(what=f"{error.where}: {error.what}" if error.where else error.what, fix=error.fix)
