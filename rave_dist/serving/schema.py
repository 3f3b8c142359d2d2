"""Requests and responses of the service as pydantic models; imports neither Ray nor torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from rave_dist.identity import content_id
from rave_dist.options import StrictRecord
from rave_dist.records import ConversionParameters, ConversionRecord, Problem, Record, now
from rave_dist.records.conversion_options import ConversionOptions

JobState = Literal["queued", "running", "done", "partial", "failed", "cancelled"]

ADDRESS_FORM = r"^(/|[A-Za-z][A-Za-z0-9+.-]*://)[^\x00]*$"
Address = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=ADDRESS_FORM)]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Limits(StrictRecord):
    """Limits of the service.

    ``sound_seconds`` is decoded audio, ``model_samples`` its channels times its samples at the model's rate, which determine
    memory and time; ``uploads`` requests with a sound are received or converted at once; ``upload_seconds`` is the time to
    receive a body, ``request_seconds`` the time from then to the result, waiting included; ``queued`` requests wait for the
    models, further ones are asked to retry after ``retry_after_seconds``.
    """

    body_bytes: int = Field(default=256 << 20, ge=1)
    sound_seconds: float = Field(default=900.0, gt=0)
    model_samples: int = Field(default=2 * 900 * 48_000, ge=1)
    uploads: int = Field(default=160, ge=1)
    upload_seconds: float = Field(default=300.0, gt=0)
    request_seconds: float = Field(default=900.0, gt=0)
    queued: int = Field(default=64, ge=1)
    retry_after_seconds: int = Field(default=5, ge=1)


class ConvertQuery(ConversionOptions):
    """The query of ``POST /v1/convert``."""

    model: Reference = Field(description="NAME or NAME@VERSION.")
    format: Literal["flac", "wav"] = "flac"


class JobRequest(StrictRecord):
    """The body of ``POST /v1/jobs``: convert a corpus with a model. Addresses are absolute paths or s3://."""

    model: Reference = Field(description="NAME or NAME@VERSION.")
    inputs: tuple[Address, ...] = Field(min_length=1, max_length=10_000)
    output: Address
    parameters: ConversionOptions = ConversionOptions()
    overwrite: bool = Field(default=False, description="Replace files in OUTPUT that no job of this service wrote.")


class Job(Record):
    """A requested corpus conversion; ``jobs/<id>.json`` in the store.

    The id is a hash of the request: the same request is the same job, and repeating it after its end resumes it.
    ``partial`` means finished, but some items failed or are incomplete and are reported in ``result``.
    """

    id: str
    state: JobState = "queued"
    model: str
    inputs: tuple[str, ...]
    output: str
    parameters: ConversionParameters
    overwrite: bool = False
    done: int = 0
    total: int | None = None
    result: ConversionRecord | None = None
    error: Problem | None = None
    submitted_at: str = Field(default_factory=now)
    ended_at: str | None = None

    @property
    def key(self) -> str:
        """Key of this record in the store."""
        return job_key(self.id)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("done", "partial", "failed", "cancelled")

    @classmethod
    def of(cls, request: JobRequest, *, model: str) -> Job:
        """The job of a request; ``model`` is the resolved NAME@VERSION."""
        parameters = request.parameters.parameters()
        inputs = tuple(dict.fromkeys(request.inputs))
        asked: dict[str, Any] = {"model": model, "inputs": inputs, "output": request.output, "parameters": parameters.to_json()}
        if request.overwrite:
            asked["overwrite"] = True
        return cls(
            id=content_id(asked),
            model=model,
            inputs=inputs,
            output=request.output,
            parameters=parameters,
            overwrite=request.overwrite,
        )


def job_key(job_id: str) -> str:
    """The key of a job's record."""
    return f"jobs/{job_id}.json"


def error_document(what: str, *, where: str = "", fix: str = "") -> dict[str, Any]:
    """The form in which the service reports errors."""
    return {"error": {"what": what, "where": where, "fix": fix}}
