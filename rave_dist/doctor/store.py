"""A store: its operations, S3 settings, free disk space and clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rave_dist.doctor.diagnosis import Check, Diagnosis, Request, error, from_error, ok, skipped, warning
from rave_dist.doctor.machine import free_space
from rave_dist.errors import StoreError
from rave_dist.storage.store import Store

_FOLDER = ".doctor"
_WARN_SECONDS = 5.0  # another machine's records of runs appear older or newer by the difference
_S3_REFUSES_SECONDS = 900.0


def store(request: Request) -> Iterator[Diagnosis]:
    """All checks of a store, if one is given."""
    if request.store is None:
        yield skipped("store", "give --store URI to examine a store")
        return
    if not request.store.is_local:
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
    """Tests the operations that rave-dist needs, in a temporary folder of the store."""
    is_new = place.is_local and not Path(place.uri).exists()
    folder = f"{_FOLDER}/{uuid.uuid4().hex[:12]}"
    try:
        place.write_bytes(f"{folder}/created", b"ok")
        ahead_seconds = _difference(place, f"{folder}/created")
        problems = [*_exclusive(place, folder), *_listed(place, folder), *_deleted(place, folder)]
        yield from problems or [ok("store", f"{place.uri}: create, exclusive create, list, read and delete work")]
        yield clock(ahead_seconds)
    except StoreError as problem:
        yield from_error("store", problem)
    finally:
        with suppress(StoreError):
            place.delete_folder(folder)
        if place.is_local:
            for left in (folder, _FOLDER, *([""] if is_new else [])):
                with suppress(OSError):  # another doctor may be running
                    Path(place.address(left)).rmdir()


def _exclusive(place: Store, folder: str) -> Iterator[Diagnosis]:
    if not place.claim(f"{folder}/claimed", b"first") or place.claim(f"{folder}/claimed", b"second"):
        fix = "use a server with If-None-Match or a disk with hard links: two commands must not train the same run"
        yield error("store", f"{place.uri}: an object can be created twice", fix=fix)


def _listed(place: Store, folder: str) -> Iterator[Diagnosis]:
    names = {entry.key for entry in place.list(folder)}
    if f"{folder}/created" not in names or place.read_bytes(f"{folder}/created") != b"ok":
        fix = "use a store with read-after-write consistency"
        yield error("store", f"{place.uri}: an object that was just written is not listed", fix=fix)


def _deleted(place: Store, folder: str) -> Iterator[Diagnosis]:
    place.delete(f"{folder}/created")
    if place.exists(f"{folder}/created"):
        fix = "give your user permission to delete, and use a store without object locks"
        yield error("store", f"{place.uri}: an object that was deleted is still there", fix=fix)


def _difference(place: Store, written: str) -> float:
    """Seconds by which the store's clock is ahead of ours, from the time of an object written now."""
    if place.is_local:
        place.write_bytes(written, b"ok")
        return Path(place.address(written)).stat().st_mtime - time.time()
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
