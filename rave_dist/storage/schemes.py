"""Addresses and their backends: a local path, or ``scheme://container/key``.

A further scheme is one module with a `Backend` that calls ``SCHEMES.register("name", opener)``; see `rave_dist.extensions`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from rave_dist.errors import StoreError
from rave_dist.extensions import Registry
from rave_dist.storage.backend import Backend

Opener = Callable[[str, str], Backend]
"""Opens the keys below a prefix (which may be empty) of a container: S3 calls it a bucket."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def _open_s3(bucket: str, prefix: str) -> Backend:
    from rave_dist.storage.s3 import S3Prefix  # imported here: a local store does not need boto3

    return S3Prefix(bucket, prefix)


SCHEMES: Registry[Opener] = Registry("storage scheme", {"s3": _open_s3})


def scheme_of(address: str) -> str:
    """The scheme of an address in lower case; "" for a path."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def has_scheme(address: str) -> bool:
    """Whether an address is ``scheme://…``, ``file://`` included, rather than a path."""
    return scheme_of(address) != ""


def is_remote(address: str) -> bool:
    """Whether an address has a scheme other than ``file://``, so that it is not a local path."""
    return scheme_of(address) not in ("", "file")


def split(address: str) -> tuple[str, str, str]:
    """Scheme, container and key of a remote address; not by `urlsplit`, because a key may have ``#`` and ``?`` in it.

    Raises:
        StoreError: the scheme is unknown, or the container is missing.
    """
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        forms = ", ".join(f"{name}://bucket/prefix" for name in SCHEMES)
        raise StoreError(f"{scheme}:// addresses are not supported", where=address, fix=f"use a path, or {forms}")
    container, _, key = rest.partition("/")
    if not container:
        raise StoreError(
            f"the address names no bucket or container: {scheme}://…", where=address, fix=f"write {scheme}://bucket/prefix"
        )
    return scheme, container, key


def local_path(address: str) -> str:
    """The absolute path of a path or ``file://`` address (``~`` allowed).

    Raises:
        StoreError: it is empty, as a variable of the shell that is not set: this would be the current folder.
    """
    if not address:
        raise StoreError("an address is empty", fix="give a folder, such as . for this one, or s3://bucket/prefix")
    found = _SCHEME.match(address)
    path = unquote(urlsplit(address).path) if found else address
    return os.path.abspath(os.path.expanduser(path))


def normalise(address: str) -> str:
    """The normal form of an address: an absolute path, or ``scheme://container/key`` without trailing slashes.

    Raises:
        StoreError: as `split`.
    """
    if not is_remote(address):
        return local_path(address)
    scheme, container, key = split(address)
    return f"{scheme}://{container}/{key.strip('/')}".rstrip("/")


def open_backend(address: str) -> Backend:
    """The backend of a normalised remote address.

    Raises:
        StoreError: as `split`.
    """
    scheme, container, key = split(address)
    return SCHEMES[scheme](container, key.strip("/"))
