"""Runs all checks, the fast ones first."""

from __future__ import annotations

from collections.abc import Iterator

from rave_dist.doctor import machine, ray, software, store
from rave_dist.doctor.diagnosis import Check, Diagnosis, Request

CHECKS: list[Check] = [*software.CHECKS, *machine.CHECKS, *store.CHECKS, *ray.CHECKS]


def examine(request: Request) -> Iterator[Diagnosis]:
    """Examines this machine.

    Args:
        request: options.

    Yields:
        The findings, as soon as they are known; each check yields at least one.
    """
    for check in CHECKS:
        yield from check(request)
