"""The service as a Ray Serve application: FastAPI, model replicas and a runner of corpus jobs.

::

    HTTP ──> Ingress ──(model id)──> ModelReplica   one file: `conversion.convert`, as in the command
    └────────────────> JobRunner        a corpus: `conversion.on_ray`, as in the command

It listens on loopback and has no passwords: through corpus jobs, anyone who can log in to the machine can read the recordings
of its user and write where `serving.access` allows it. Requests that a browser sends on behalf of other sites are refused
(`intake.LocalOnly`).
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from rave_dist import signals
from rave_dist.cluster import connected
from rave_dist.conversion.corpus import parameters_for
from rave_dist.errors import BusyError, ClusterError, RaveDistError
from rave_dist.progress import SILENT, Progress
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.registry import store as registry
from rave_dist.serving import jobs
from rave_dist.serving.access import Access
from rave_dist.serving.api import ConvertedAudio, build_api
from rave_dist.serving.listing import Listing, Models
from rave_dist.serving.models import ModelReplica
from rave_dist.serving.schema import Job, JobRequest, Limits
from rave_dist.storage.store import Store

Result = TypeVar("Result")

HOST = "127.0.0.1"
APPLICATION = "rave-dist"
# Concurrent requests per replica, one of them on the device; the rest wait in the ingress, which counts them.
_ONGOING_PER_REPLICA = 16
_MOST_CONNECTIONS = 10_000
_DRAIN_SECONDS = 20.0
_WATCH_SECONDS = 5.0
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 120.0  # a busy machine takes long from the start of the proxy until it knows the routes
_ANSWER_SECONDS_JOINED = 15.0  # where Serve was running before


@serve.ingress()
class Ingress:
    """The HTTP process; audio passes through its disk and Ray's object store, not its memory."""

    def __init__(self, access: Access, limits: Limits, models: DeploymentHandle[Any], *, trust: bool) -> None:
        self.store_uri = store_uri = access.store_uri
        self._access = access
        self._trust = trust
        self._limits = limits
        # Jobs have a thread of their own: a slow address of a request delays no other route.
        self._jobs = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._handle = models
        self._store = Store(store_uri)
        self._listing = Listing(self._store)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self, self._limits)

    async def check(self) -> None:
        """Raises StoreError if the store is gone."""
        await self._listing.check()

    async def models(self) -> Models:
        """All published models."""
        return await self._listing.models()

    async def find(self, reference: str) -> ModelCard:
        """The model of NAME or NAME@VERSION."""
        return await self._listing.find(reference)

    async def convert(self, card: ModelCard, sound: Path, parameters: ConversionParameters) -> ConvertedAudio:
        """Sends audio to a replica, preferably one that has loaded the model.

        Raises:
            BusyError: too many requests are waiting.
            ClusterError: there is no replica, or it died.
        """
        # In the object store, which spills to disk, rather than in the memory of this process while the request waits.
        body = await asyncio.to_thread(lambda: ray.put(np.fromfile(sound, np.uint8)))
        handle = self._handle.options(stream=True, multiplexed_model_id=card.reference)
        answer: Any = handle.convert.remote(body, card, parameters)
        try:
            head = await anext(answer)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        except BackPressureError as error:
            seconds = self._limits.retry_after_seconds
            raise BusyError("too many requests are waiting", fix=f"send it again in {seconds} seconds") from error
        except RayTaskError as error:
            if isinstance(error.cause, RaveDistError):
                raise error.cause from None
            raise
        except (RayActorError, DeploymentUnavailableError) as error:
            fix = "send it again; if it fails again, the sound or the model may be too large for this machine's memory"
            raise ClusterError("the model worker is unavailable", where=card.reference, fix=fix) from error
        return ConvertedAudio(blocks=_blocks(answer), **head)

    async def submit(self, request: JobRequest) -> Job:
        """Submits a corpus to the job runner, which lists its recordings.

        Raises:
            RequestError: jobs may not use one of its addresses.
            ConversionError: the model does not have what the parameters change.
        """
        card = await self.find(request.model)
        job = Job.of(request, model=card.reference)
        parameters_for(card, job.parameters)
        await self._in_jobs_thread(lambda: self._access.check(job.inputs, job.output))
        return await self._ask_runner("submit", job)

    async def jobs(self) -> list[Job]:
        """The records of all corpus jobs."""
        return await self._in_jobs_thread(lambda: jobs.list_jobs(self._store))

    async def job(self, job_id: str) -> Job:
        """The record of a corpus job."""
        return await self._in_jobs_thread(lambda: jobs.read_job(self._store, job_id))

    async def cancel(self, job_id: str) -> Job:
        """Cancels a corpus job."""
        await self.job(job_id)
        return await self._ask_runner("cancel", job_id)

    async def _ask_runner(self, method: str, argument: Any) -> Job:
        runner = await self._in_jobs_thread(lambda: jobs.job_runner(self.store_uri, self._access, trust=self._trust))
        try:
            answer: Job = await getattr(runner, method).remote(argument)
        except RayTaskError as error:
            if isinstance(error.cause, RaveDistError):
                raise error.cause from None
            raise
        return answer

    async def _in_jobs_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._jobs, work)


async def _blocks(answer: Any) -> AsyncIterator[bytes]:
    async for block in answer:
        yield block


def build(
    store_uri: str,
    *,
    limits: Limits | None = None,
    max_models: int | None = None,
    replicas: int = 1,
    num_cpus: float = 0.25,
    num_gpus: float = 0.0,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    trust: bool = False,
) -> serve.Application:
    """The application, for ``serve.run``, ``serve build`` or a test.

    Args:
        store_uri: the store of the models; every node must be able to read it.
        limits: sizes, times and queue lengths.
        max_models: models cached by each replica; by default as many as fit in its memory.
        replicas: number of converting processes.
        num_cpus: CPUs reserved by each; below 1, so that a corpus job finds one on the smallest machine.
        num_gpus: share of a GPU reserved by each; 0 converts on the CPU.
        outputs: folders or prefixes below which corpus jobs may write; empty for all but the store and the system's.
        inputs: folders or prefixes below which corpus jobs may read; empty for all.
        trust: load model files with operators that no export has.
    """
    access = Access(store_uri, tuple(outputs), tuple(inputs))
    limits = limits or Limits()
    full = BackpressureConfig(status_code=429, retry_after_s=limits.retry_after_seconds)
    models: Any = serve.deployment(
        ModelReplica,
        name="models",
        num_replicas=replicas,
        max_ongoing_requests=_ONGOING_PER_REPLICA,
        max_queued_requests=limits.queued,
        backpressure_config=full,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        health_check_period_s=10,
        health_check_timeout_s=30,
    )
    device = "cuda" if num_gpus else "cpu"
    ingress: Any = serve.deployment(
        Ingress,
        name="ingress",
        # It counts uploads and conversions itself (`Limits.uploads`), so that no other route ever waits for them.
        max_ongoing_requests=_MOST_CONNECTIONS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
    )
    application: serve.Application = ingress.bind(
        access, limits, models.bind(store_uri, limits, max_models=max_models, device=device, trust=trust), trust=trust
    )
    return application


def build_from(arguments: dict[str, Any]) -> serve.Application:
    """`build` for a configuration file of Ray Serve, whose ``args`` are the arguments by name."""
    return build(**arguments)


def run(
    store: Store,
    *,
    port: int = 8000,
    limits: Limits | None = None,
    max_models: int | None = None,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    trust: bool = False,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> None:
    """Serves a store on 127.0.0.1 until KeyboardInterrupt or ``stop``.

    A corpus job that is running at that moment is not lost: the next service on this store resumes it.

    Args:
        store: the store of the models.
        port: 0 selects a free one.
        limits: sizes, times and queue lengths.
        max_models: models cached by each replica; by default as many as fit in its memory.
        outputs: as in `build`.
        inputs: as in `build`.
        trust: as in `build`.
        progress: receives the stages of the start, and the address once the service is ready.
        stop: ends the service when it is set.

    Raises:
        StoreError: the store cannot be read.
        ClusterError: the port is in use, Ray does not respond, or the service could not start or has ended.
    """
    limits = limits or Limits()
    stop = stop or threading.Event()
    num_models = len(registry.list_models(store))
    port = _free_port(port)
    address = f"http://{HOST}:{port}"
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serving = False
    patience = signals.allow(lambda: 2 * _DRAIN_SECONDS if serving else 0.0)  # for the requests in progress
    with patience, connected(dashboard=True, say=progress.say) as ends_with_us:
        # A Serve instance that was running before keeps running; our own ends with our Ray.
        joined = not ends_with_us and bool(serve.status().proxies)
        stays = ends_with_us or joined
        try:
            progress.stage("starting the service")
            # Longer than our own limits, which respond with a message; this one is for clients that do not read.
            seconds = 2 * (limits.upload_seconds + limits.request_seconds)
            options = {"host": HOST, "port": port, "request_timeout_s": seconds}
            serve.start(proxy_location="HeadOnly", http_options=options)
            # A GPU if there is one, like the command's workers, or the samples would differ; a part of it is left for jobs.
            gpus = 0.5 if jobs.num_gpus() else 0.0
            allowed: dict[str, Any] = {"outputs": outputs, "inputs": inputs, "trust": trust}
            application = build(store.uri, limits=limits, max_models=max_models, num_gpus=gpus, **allowed)
            serve.run(application, name=APPLICATION, route_prefix="/")
            access = Access(store.uri, tuple(outputs), tuple(inputs))
            jobs.job_runner(store.uri, access, trust=trust)  # resumes the jobs of an earlier service
            _wait_for_answer(port, seconds=_ANSWER_SECONDS_JOINED if joined else _ANSWER_SECONDS)
            serving = True
            progress.stage("")
            progress.say(f"{num_models} models of {store.uri} at {address} (Ctrl-C ends it)")
            while not stop.wait(_WATCH_SECONDS):
                serve.status()
        except KeyboardInterrupt:  # SIGTERM included, for the command
            progress.stage("stopping")
        except RaveDistError:
            raise
        except (RayError, RayServeException, RuntimeError, TimeoutError) as error:
            what = f"the service failed ({str(error).strip().splitlines()[0]})"
            raise ClusterError(what, where=address, fix="see Ray's logs in /tmp/ray/session_latest/logs/serve") from error
        finally:
            jobs.stop_jobs(store.uri)
            with suppress(RayError, RayServeException):  # it has ended
                serve.delete(APPLICATION)
                if not stays:
                    serve.shutdown()  # type: ignore[no-untyped-call]


def _free_port(port: int) -> int:
    """The port, or a free one for 0. Checked before Ray starts: its proxy would silently share a port in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ClusterError(
                f"port {port} cannot be used ({reason.lower()})",
                where=HOST,
                fix=f"choose another: --port {max(port, 8000) + 1}",
            ) from error
        return int(probe.getsockname()[1])


def _wait_for_answer(port: int, *, seconds: float) -> None:
    """Raises ClusterError unless the service responds in time: Serve keeps the port of its first start in a cluster."""
    deadline = time.monotonic() + seconds
    while not _answers(port, timeout=seconds):
        if time.monotonic() > deadline:
            raise ClusterError(
                "the service does not respond at this port",
                where=f"{HOST}:{port}",
                fix="if Serve is already running in this cluster, give its port, or stop it with serve shutdown",
            )
        time.sleep(_POLL_SECONDS)


def _answers(port: int, *, timeout: float) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
