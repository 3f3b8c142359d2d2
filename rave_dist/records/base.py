"""The base of all records: frozen, stored as JSON; imports neither torch nor Ray nor Arrow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rave_dist.errors import DamagedObjectError, MissingKeyError, RaveDistError
from rave_dist.records.words import words


def now() -> str:
    """The current time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class JsonStore(Protocol):
    """The part of a store that records need (`rave_dist.storage.store.Store`)."""

    def read_json(self, key: str) -> Any:
        """An object's JSON value."""

    def write_json(self, key: str, value: Any) -> None:
        """Writes a JSON value, atomically."""

    def address(self, key: str) -> str:
        """The full path or address of a key."""


class Record(BaseModel):
    """Base of all records: frozen; keys that a newer version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def load(cls, store: JsonStore, key: str) -> Self:
        """Reads a record of this kind.

        Raises:
            MissingKeyError: nothing is stored under the key.
            DamagedObjectError: the object is not a record of this kind.
            StoreError: the store cannot be read.
        """
        try:
            return cls.model_validate(store.read_json(key))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DamagedObjectError(
                f"not a valid {cls.__name__} ({place}: {words(first)})",
                where=store.address(key),
                fix="delete it; the stage that writes it will run again",
            ) from error

    @classmethod
    def find(cls, store: JsonStore, key: str) -> Self | None:
        """Reads a record that its stage can write again; None if it is missing or damaged, as after a crash or a full disk.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return cls.load(store, key)
        except (MissingKeyError, DamagedObjectError):
            return None

    def save(self, store: JsonStore, key: str) -> None:
        """Writes the record, atomically.

        Raises:
            StoreError: the store cannot be written.
        """
        store.write_json(key, self.to_json())


class Problem(Record):
    """A problem and the smallest fix."""

    what: str
    fix: str = ""

    @staticmethod
    def of(error: RaveDistError) -> Problem:
        """An error as a record: place and message in one sentence, and the fix."""
        return Problem(what=f"{error.where}: {error.what}" if error.where else error.what, fix=error.fix)
