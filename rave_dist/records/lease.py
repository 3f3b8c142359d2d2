"""Record of a lease: who is at work on a library, or on a whole store."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record, now


class LeaseRecord(Record):
    """The holder of a lease, rewritten while it works.

    ``machine`` identifies the running system, and is empty where that is unknown; ``process`` and ``started`` a process on it,
    and ``token`` one of its leases.
    ``beat`` is the time of the last sign of life, by the holder's clock.
    """

    command: str
    user: str
    host: str
    machine: str
    process: int
    started: str
    token: str = ""
    since: str = Field(default_factory=now)
    beat: str = Field(default_factory=now)
    released: bool = False

    def __str__(self) -> str:
        who = f"{self.user} on {self.host}" if self.user else self.host
        return f"rave-dist {self.command} ({who}, process {self.process}, since {self.since})"


def library_lease(library: str) -> str:
    """The folder of a library's lease in a store."""
    return f"leases/libraries/{library}"


STORE_LEASE = "leases/store"
"""The folder of the lease of a whole store."""
