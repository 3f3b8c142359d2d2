from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rave_dist.errors import AudioError, BusyError, MissingKeyError, ModelNotFoundError, StoreError
from rave_dist.records import ConversionParameters, ModelCard, ModelFile, Problem
from rave_dist.serving.api import ConvertedAudio, build_api
from rave_dist.serving.listing import Models
from rave_dist.serving.schema import Job, JobRequest, Limits
from tests.sample_records import model_card

LIMITS = Limits(body_bytes=1000, sound_seconds=1.0, upload_seconds=0.3, uploads=240)


def _card(name: str, version: str) -> ModelCard:
    file = ModelFile(key=f"models/{name}/{version}/{name}.ts", sha256="0" * 64, bytes=1000)
    return model_card(name=name, version=version, files={"offline": file, "streaming": file})


class Echo:
    """A backend that answers with the hash of the sound it was given, and remembers what it was asked."""

    store_uri = "/store"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ConversionParameters]] = []
        self._jobs: dict[str, Job] = {}
        self.gone = False
        self.invalid: tuple[Problem, ...] = ()
        self.waiting = asyncio.Event()
        self.cards = [_card("rebana", "aaa"), _card("kompang", "bbb")]

    async def check(self) -> None:
        if self.gone:
            raise StoreError("there is no such folder", where=self.store_uri, fix="check the address of the store")

    async def models(self) -> Models:
        await self.check()
        return Models(tuple(self.cards), self.invalid)

    async def find(self, reference: str) -> ModelCard:
        for card in self.cards:
            if reference in (card.name, card.reference):
                return card
        raise ModelNotFoundError(f"there is no model {reference!r}", where=self.store_uri, fix="did you mean 'rebana'?")

    async def convert(self, card: ModelCard, sound: Path, parameters: ConversionParameters) -> ConvertedAudio:
        content = sound.read_bytes()
        if content == b"noise":
            raise AudioError("not a sound", fix="send a sound")
        if content == b"bug":
            raise ZeroDivisionError
        if content == b"wait":
            await self.waiting.wait()
        if content == b"busy":
            raise BusyError("too many requests wait", fix="try again")
        self.asked.append((card.reference, parameters))
        digest = hashlib.sha256(content).hexdigest().encode()

        async def blocks() -> AsyncIterator[bytes]:
            yield digest[:10]
            yield digest[10:]

        return ConvertedAudio("audio/flac", len(digest), {}, blocks())

    async def submit(self, request: JobRequest) -> Job:
        job = Job.of(request, model=(await self.find(request.model)).reference)
        self._jobs[job.id] = job
        return job

    async def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    async def cancel(self, job_id: str) -> Job:
        job = (await self.job(job_id)).model_copy(update={"state": "cancelled"})
        self._jobs[job_id] = job
        return job

    async def job(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise MissingKeyError("there is no such job", where=job_id, fix="GET /v1/jobs lists the jobs")
        return self._jobs[job_id]


@pytest.fixture
def backend() -> Echo:
    return Echo()


@pytest.fixture
def client(backend: Echo) -> Callable[..., httpx.AsyncClient]:
    """Makes a client of the API; requests never leave the process."""
    api = build_api(backend, LIMITS)

    def make(**options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", **options)

    return make


@pytest.fixture
def run() -> Iterator[Callable[[Any], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run
