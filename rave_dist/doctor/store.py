"""A store: its operations, S3 settings, free disk space and clock."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rave_dist.doctor.diagnosis import Check, Diagnosis, Request, error, from_error, ok, skipped, warning
from rave_dist.doctor.machine import free_space
from rave_dist.errors import StoreError
from rave_dist.storage.schemes import scheme_of
from rave_dist.storage.store import Store

_WARN_SECONDS = 5.0  # another machine's records of runs appear older or newer by the difference
_S3_REFUSES_SECONDS = 900.0


def store(request: Request) -> Iterator[Diagnosis]:
    """All checks of a store, if one is given."""
    if request.store is None:
        yield skipped("store", "give --store URI to examine a store")
        return
    if scheme_of(request.store.uri) == "s3":
        yield s3_settings()
    yield from operations(request.store)
    if request.store.is_local:
        yield free_space("store disk", Path(request.store.uri))


def s3_settings() -> Diagnosis:
    """The S3 endpoint and the source of the credentials, without the secrets."""
    from rave_dist.storage.s3 import resolved_settings

    try:
        settings = resolved_settings()
    except StoreError as problem:
        return from_error("S3 settings", problem)
    where = f"{settings.endpoint}, region {settings.region or 'none'}, profile {settings.profile}"
    if settings.credentials is None:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile that has credentials"
        return error("S3 settings", f"{where}; no credentials", fix=fix)
    return ok("S3 settings", f"{where}; key {settings.access_key} from {settings.credentials}")


def operations(place: Store) -> Iterator[Diagnosis]:
    """Tries the operations that rave-dist needs, and compares the clocks."""
    try:
        place.check_writable()
        yield ok("store", f"{place.uri}: create, replace, exclusive create, list, read and delete work")
        ahead_seconds = _seconds_ahead(place)
        if ahead_seconds is not None:
            yield clock(ahead_seconds)
    except StoreError as problem:
        yield from_error("store", problem)


def _seconds_ahead(place: Store) -> float | None:
    """Seconds by which the clock of a folder or of S3 is ahead of ours, from the time of something written or asked now."""
    if place.is_local:
        folder = next(path for path in (Path(place.uri), *Path(place.uri).parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rave-dist-") as file:
            return os.stat(file.name).st_mtime - time.time()
    if scheme_of(place.uri) != "s3":
        return None
    from rave_dist.storage.s3 import server_time

    return server_time(place.uri) - time.time()


def clock(ahead_seconds: float) -> Diagnosis:
    """Compares this machine's clock with the store's, which has a resolution of a second."""
    off = abs(ahead_seconds)
    if off < _WARN_SECONDS:
        return ok("clock", "agrees with the store's")
    way = "behind" if ahead_seconds > 0 else "ahead of"
    what = f"this machine's clock is {off:.0f} s {way} the store's"
    fix = "set the clock, for example with `timedatectl set-ntp true`"
    return error("clock", what, fix=fix) if off > _S3_REFUSES_SECONDS else warning("clock", what, fix=fix)


CHECKS: Iterable[Check] = (store,)
