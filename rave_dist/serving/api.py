"""The HTTP interface: routes, limits and errors; independent of Ray.

::

    GET  /v1/models                    all published models, as `rave-dist models --json` lists them
    GET  /v1/models/NAME[@VERSION]     one of them
    POST /v1/convert?model=…           converts the audio file in the body
    POST /v1/jobs                      converts a corpus by address; 202 with the job
    GET  /v1/jobs                      all jobs, the newest first
    GET  /v1/jobs/ID                   the job's progress
    DELETE /v1/jobs/ID                 cancels it
    GET  /healthz                      whether the service is running and its store responds
    GET  /docs                         the routes on a page
"""

from __future__ import annotations

import asyncio
import reprlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from rave_dist import __version__
from rave_dist.conversion.corpus import parameters_for
from rave_dist.errors import (
    AudioError,
    BusyError,
    ClusterError,
    ConversionError,
    DamagedObjectError,
    LimitError,
    MissingKeyError,
    ModelNotFoundError,
    RaveDistError,
    RequestError,
    StoreError,
    from_os_error,
)
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.records.words import words
from rave_dist.serving.intake import LocalOnly, Slots, receive_body
from rave_dist.serving.listing import Models
from rave_dist.serving.page import page_html, routes_html
from rave_dist.serving.schema import ConvertQuery, Job, JobRequest, Limits, error_document
from rave_dist.suggest import suggest

# The first class that an error is an instance of decides.
_STATUS: tuple[tuple[type[RaveDistError], int], ...] = (
    (ModelNotFoundError, 404),
    (MissingKeyError, 404),
    (LimitError, 413),
    (RequestError, 400),
    (AudioError, 400),
    (ConversionError, 400),
    (BusyError, 429),
    (DamagedObjectError, 500),
    (StoreError, 503),
    (ClusterError, 503),
    (RaveDistError, 500),
)
_JOB_BYTES = 4 << 20
_MOST_PROBLEMS = 5


@dataclass(frozen=True)
class ConvertedAudio:
    """An encoded result: media type, size and bytes."""

    media_type: str
    num_bytes: int
    headers: dict[str, str]
    blocks: AsyncIterator[bytes]


class Backend(Protocol):
    """The backend of the routes; its methods raise the errors listed in ``_STATUS``."""

    store_uri: str

    async def check(self) -> None:
        """Raises StoreError if the store is gone, whatever else waits."""

    async def models(self) -> Models:
        """All published models, every version, and the cards that are not valid."""

    async def find(self, reference: str) -> ModelCard:
        """The model of NAME (the latest) or NAME@VERSION."""

    async def convert(self, card: ModelCard, sound: Path, parameters: ConversionParameters) -> ConvertedAudio:
        """Converts an audio file of any format with a model."""

    async def submit(self, request: JobRequest) -> Job:
        """Submits a corpus job; one that is already queued or running is returned unchanged."""

    async def jobs(self) -> list[Job]:
        """All corpus jobs, the newest first."""

    async def job(self, job_id: str) -> Job:
        """The progress of a corpus job."""

    async def cancel(self, job_id: str) -> Job:
        """Cancels a corpus job; one that is over is returned unchanged."""


def build_api(backend: Backend, limits: Limits) -> FastAPI:
    """The application; its page of the routes is ours, because FastAPI's loads scripts from the network."""
    api = FastAPI(title="rave-dist", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    slots = Slots(limits.uploads, retry_after_seconds=limits.retry_after_seconds)
    api.add_middleware(LocalOnly)
    _report_errors(api, limits)

    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return page_html()

    @api.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return routes_html(api.openapi())

    @api.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the service is running and its store responds."""
        await backend.check()
        return {"status": "ok", "version": __version__}

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """All published models, and the cards that are not valid."""
        found = await backend.models()
        cards = [card.summary(backend.store_uri) for card in found.cards]
        return {"models": cards, "invalid": [problem.to_json() for problem in found.invalid]}

    @api.get("/v1/models/{reference}")
    async def model(reference: str) -> dict[str, Any]:
        """A model by NAME (its latest version) or NAME@VERSION."""
        return (await backend.find(reference)).summary(backend.store_uri)

    sound_body = {"requestBody": {"required": True, "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}}

    @api.post("/v1/convert", response_class=Response, openapi_extra=sound_body)
    async def convert(request: Request, query: Annotated[ConvertQuery, Query()]) -> Response:
        """Converts the sound in the body with a model."""
        async with slots.take(request):
            card = await backend.find(query.model)
            parameters = parameters_for(card, query.parameters())
            with _upload() as upload:
                await receive_body(
                    request, upload.write, most_bytes=limits.body_bytes, most_seconds=limits.upload_seconds, what="sound"
                )
                upload.flush()
                try:
                    async with asyncio.timeout(limits.request_seconds):
                        sound = await backend.convert(card, Path(upload.name), parameters)
                except TimeoutError as error:
                    what = f"the conversion did not end within {limits.request_seconds:g} seconds"
                    fix = "send a shorter sound, or convert it with POST /v1/jobs or rave-dist convert"
                    raise HTTPException(504, error_document(what, where=request.url.path, fix=fix)) from error
        return StreamingResponse(
            sound.blocks,
            media_type=sound.media_type,
            headers={**sound.headers, "content-length": str(sound.num_bytes), "x-rave-dist-model": card.reference},
        )

    job_body = {"requestBody": {"required": True, "content": {"application/json": {"schema": JobRequest.model_json_schema()}}}}

    @api.post("/v1/jobs", status_code=202, openapi_extra=job_body)
    async def submit(request: Request) -> dict[str, Any]:
        """Converts a corpus by address; the same request is the same job, and resumes it after its end."""
        # A form on another site cannot send this type without a preflight request, which is not answered.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            fix = "send JSON with the header Content-Type: application/json"
            raise HTTPException(415, error_document("a job must be sent as JSON", where=request.url.path, fix=fix))
        body = bytearray()
        await receive_body(request, body.extend, most_bytes=_JOB_BYTES, most_seconds=limits.upload_seconds, what="job")
        try:
            asked = JobRequest.model_validate_json(bytes(body))
        except ValidationError as error:
            raise _explain(error.errors(), JobRequest, where=request.url.path) from error
        return (await backend.submit(asked)).to_json()

    @api.get("/v1/jobs")
    async def jobs() -> dict[str, Any]:
        """All jobs, the newest first."""
        return {"jobs": [job.to_json() for job in await backend.jobs()]}

    @api.get("/v1/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        """The progress of a job."""
        return (await backend.job(job_id)).to_json()

    @api.delete("/v1/jobs/{job_id}")
    async def cancel(job_id: str) -> dict[str, Any]:
        """Cancels a job; finished files stay, and the same request resumes it."""
        return (await backend.cancel(job_id)).to_json()

    return api


@contextmanager
def _upload() -> Iterator[Any]:
    """A temporary file for a body; a full disk is reported as that."""
    try:
        with tempfile.NamedTemporaryFile(prefix="rave-dist-") as file:
            yield file
    except OSError as error:
        if isinstance(error, RaveDistError):
            raise
        raise from_os_error(error, where=tempfile.gettempdir()) from error


def _report_errors(api: FastAPI, limits: Limits) -> None:
    @api.exception_handler(RaveDistError)
    async def known(request: Request, error: RaveDistError) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        headers = {"retry-after": str(limits.retry_after_seconds)} if status in (429, 503) else None
        return JSONResponse(error_document(error.what, where=error.where, fix=error.fix), status_code=status, headers=headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await known(request, _explain(error.errors(), ConvertQuery, where=request.url.path))

    @api.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        document = _document(error.detail, error.status_code, where=f"{request.method} {request.url.path}")
        return JSONResponse(document, status_code=error.status_code, headers=error.headers)

    @api.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # the client has gone

    @api.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        document = error_document(
            f"the service failed ({type(error).__name__})",
            where=request.url.path,
            fix="see its log; other requests are not affected",
        )
        return JSONResponse(document, status_code=500)


def _document(detail: Any, status: int, *, where: str) -> dict[str, Any]:
    """Our own errors carry a document; those of the framework (unknown path or method) a string."""
    if isinstance(detail, dict):
        return detail
    what = {404: "there is no such route", 405: "this route has no such method"}.get(status, str(detail))
    fix = "the routes are GET /v1/models, POST /v1/convert, POST /v1/jobs and GET /healthz; all at /docs"
    return error_document(what, where=where, fix=fix)


def _explain(problems: Any, model: type[ConvertQuery | JobRequest], *, where: str) -> RequestError:
    """All errors of a request in one message."""
    what: list[str] = []
    fixes: list[str] = []
    for problem in problems[:_MOST_PROBLEMS]:
        place = [str(part) for part in problem["loc"] if part != "query"]
        name = ".".join(place) or "the body"
        if problem["type"] == "extra_forbidden":
            known = tuple((ConvertQuery if place[0] == "parameters" else model).model_fields)
            what.append(f"unknown parameter {name!r}")
            fixes.append(suggest(place[-1], known))
        elif problem["type"] == "missing":
            what.append(f"{name!r} is missing")
            fixes.append(f"add {place[-1]!r}")
        elif problem["type"] == "string_pattern_mismatch":
            what.append(f"{name!r} is {reprlib.repr(problem['input'])}: not an absolute path or an s3:// address")
            fixes.append("write the full path or s3://bucket/prefix")
        elif problem["type"] == "json_invalid":
            what.append("the body is not valid JSON")
            fixes.append("send one JSON object in UTF-8; GET /docs lists its keys")
        else:
            what.append(f"{name!r} {words(problem)}")
            fixes.append(problem.get("ctx", {}).get("fix") or f"correct {name!r}")
    return RequestError("; ".join(what), where=where, fix="; ".join(dict.fromkeys(fixes)))
