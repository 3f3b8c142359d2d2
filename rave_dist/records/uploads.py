"""Recordings of another machine that were uploaded to a store.

::

    recordings/objects/<sha256><suffix>                 each content once
    recordings/listings/<library>/<instrument>.json     `UploadedRecordings`, written last
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import StringConstraints

from rave_dist.records.base import Record
from rave_dist.records.passed_over import PassedOver

UPLOADS: Final = "recordings/objects"
"""The folder of uploaded recordings."""

_LISTINGS = "recordings/listings"
_LISTING = re.compile(rf"(.+)/({_LISTINGS}/[^/]+/[^/]+\.json)")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}$")


class UploadedRecording(Record):
    """A recording as its own machine lists it, and the hash of its bytes, by which it is stored.

    Attributes:
        source: its path on that machine.
        fingerprint: its size and modification time there.
        bytes: its size.
        relative: its path below the folder that it was found in.
        sha256: of its bytes.
    """

    source: str
    fingerprint: str
    bytes: int
    relative: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @property
    def key(self) -> str:
        """Its key; with the suffix of its name, which may select a decoder."""
        suffix = _SUFFIX.search(self.source)
        return f"{UPLOADS}/{self.sha256}{suffix[0] if suffix else ''}"


class UploadedRecordings(Record):
    """The recordings of an instrument that were uploaded; the other fields as in `rave_dist.audio.io.sources.Listing`."""

    recordings: tuple[UploadedRecording, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()


def uploads_key(library: str, instrument: str) -> str:
    """The key of an instrument's `UploadedRecordings`."""
    return f"{_LISTINGS}/{library}/{instrument}.json"


def split_uploads(address: str) -> tuple[str, str] | None:
    """The store and the key of an address of `UploadedRecordings`; None for any other address."""
    found = _LISTING.fullmatch(address)
    return (found[1], found[2]) if found else None
