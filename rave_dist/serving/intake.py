"""Intake of requests: allowed hosts, and bodies that are limited while they are received."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from rave_dist.errors import BusyError, LimitError, RequestError
from rave_dist.serving.schema import error_document

_DISCARD_SECONDS = 5.0
_REFUSED_SECONDS = 0.5


class Slots:
    """A number of requests that may be in progress at once; further ones are refused at once instead of waiting."""

    def __init__(self, most: int, *, retry_after_seconds: int) -> None:
        self._free = most
        self._retry_after_seconds = retry_after_seconds

    @asynccontextmanager
    async def take(self, request: Request) -> AsyncIterator[None]:
        """Holds one inside the block.

        Raises:
            BusyError: none is free.
        """
        if not self._free:
            await _discard(request, 1 << 20, seconds=_REFUSED_SECONDS)
            fix = f"send it again in {self._retry_after_seconds} seconds"
            raise BusyError("too many requests are in progress", where=request.url.path, fix=fix)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class LocalOnly:
    """Accepts only requests that are addressed to this machine by this machine.

    The service has no passwords and can access all files of its user. A web page could otherwise reach it through the user's
    browser: by a form (another Origin) or by a name that resolves to 127.0.0.1 (another Host).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            host = headers.get(b"host", "")
            origin = headers.get(b"origin")
            if not _is_loopback(f"//{host}") or (origin is not None and not _is_at(origin, host)):
                answer = JSONResponse(
                    error_document(
                        "this service accepts only requests from this machine",
                        where=origin or host,
                        fix="use its 127.0.0.1 address; from elsewhere, through an SSH tunnel",
                    ),
                    status_code=403,
                )
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_loopback(address: str) -> bool:
    try:
        name = urlsplit(address).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_at(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


async def receive_body(
    request: Request, sink: Callable[[bytes], object], *, most_bytes: int, most_seconds: float, what: str
) -> int:
    """Passes a body to ``sink`` as it arrives.

    Args:
        request: the request.
        sink: receives the body in blocks.
        most_bytes: limit of its size.
        most_seconds: limit of the time to receive it.
        what: the name of the body in errors ("sound").

    Returns:
        Its size in bytes.

    Raises:
        RequestError: it is empty.
        LimitError: its size, or its declared size, exceeds ``most_bytes``.
        HTTPException: 408, it did not arrive within ``most_seconds``; 415, it is a form or compressed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    wrapping = request.headers.get("content-encoding", "identity").lower()
    if kind.startswith("multipart/") or wrapping != "identity":
        raise HTTPException(
            415,
            error_document(
                f"the body is {kind if kind.startswith('multipart/') else wrapping}, not the {what} itself",
                where=request.url.path,
                fix=f"send the {what} as the body: curl --data-binary @FILE",
            ),
        )
    too_large = LimitError(
        f"the {what} is larger than {most_bytes:,} bytes",
        where=request.url.path,
        fix="send a shorter one, or convert files on this machine with POST /v1/jobs or rave-dist convert",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        await _discard(request, most_bytes)
        raise too_large
    size = 0
    try:
        async with asyncio.timeout(most_seconds):
            async for block in request.stream():
                size += len(block)
                if size > most_bytes:
                    break
                sink(block)
    except TimeoutError as error:
        raise HTTPException(
            408,
            error_document(
                f"the {what} did not arrive within {most_seconds:g} seconds", where=request.url.path, fix="send it again"
            ),
        ) from error
    if size > most_bytes:
        await _discard(request, most_bytes)
        raise too_large
    if size == 0:
        raise RequestError(
            f"the body is empty: there is no {what} in it",
            where=request.url.path,
            fix=f"send the {what} as the body: curl --data-binary @FILE",
        )
    return size


async def _discard(request: Request, most_bytes: int, *, seconds: float = _DISCARD_SECONDS) -> None:
    """Reads more of a refused body, because many clients read the response only after sending everything."""
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for block in request.stream():
                size += len(block)
                if size > most_bytes:
                    return
    except (TimeoutError, ClientDisconnect):
        return
