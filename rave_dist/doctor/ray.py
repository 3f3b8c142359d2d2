"""Starts Ray, or connects to the cluster of ``RAY_ADDRESS``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from rave_dist.doctor.diagnosis import Check, Diagnosis, Request, error, from_error, ok, skipped, warning
from rave_dist.errors import ClusterError


def ray(request: Request) -> Iterator[Diagnosis]:
    """Starts and ends an embedded Ray, or connects to the named one."""
    if not request.start_ray:
        yield skipped("Ray", "not started, as requested")
        return
    try:
        from rave_dist.cluster import connected
    except (ImportError, OSError) as problem:
        yield error("Ray", f"cannot be imported ({problem})", fix="install rave-dist again")
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    said: list[str] = []
    begun = time.monotonic()
    try:
        with connected(say=said.append) as ours:
            seconds = time.monotonic() - begun
    except ClusterError as problem:
        yield from_error("Ray", problem)
        return
    what = f"starts in {seconds:.0f} s and ends" if ours else f"answers at {address}"
    if ours and said:
        yield warning(
            "Ray",
            f"{what}, after {len(said)} failed starts",
            fix="run fewer programs at the same time; Ray's start has time limits",
        )
    else:
        yield ok("Ray", "; ".join([what, *said]))


CHECKS: Iterable[Check] = (ray,)
