"""Runs all checks of the machine, the quick ones first."""

from __future__ import annotations

from collections.abc import Iterator

from rave_dist.doctor import machine, ray, software, store
from rave_dist.doctor.diagnosis import Check, Diagnosis, Request

CHECKS: list[Check] = [*software.CHECKS, *machine.CHECKS, *store.CHECKS, *ray.CHECKS]


def examine(request: Request) -> Iterator[Diagnosis]:
    """Examines this machine.

    Args:
        request: what to examine beyond the machine itself.

    Yields:
        What was found, as soon as it is known; each check yields at least one.
    """
    for check in CHECKS:
        yield from check(request)
