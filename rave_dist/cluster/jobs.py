"""Jobs of a cluster: programs that it runs on its own, whatever becomes of the machine that submits them."""

from __future__ import annotations

import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from rave_dist.cluster import address as addresses
from rave_dist.cluster import messages
from rave_dist.cluster.address import Address
from rave_dist.errors import ClusterError

State = Literal["waiting", "running", "succeeded", "failed", "stopped"]

DASHBOARD: Final = "RAY_API_SERVER_ADDRESS"
"""The environment variable with the dashboard's address, for example of a tunnel; Ray prefers it to ``RAY_ADDRESS``."""

_AGENT_SECONDS = 180.0
_ANSWER_SECONDS = 60.0
_PAUSE_SECONDS = 2.0
_STATES: Final[dict[str, State]] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


@dataclass(frozen=True)
class Job:
    """A job: its id, state, Ray's message, the exit code of its program once it ended, and what its submitter noted."""

    id: str
    state: State
    message: str = ""
    exit_code: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether its program has ended."""
        return self.state not in ("waiting", "running")


class _Client(JobSubmissionClient):
    """Ray's client with a time limit: after a laptop has slept, a connection may stay silent without end."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": _ANSWER_SECONDS, **options})


class Jobs:
    """The jobs of the cluster of ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``.

    Raises:
        ClusterError: by every method, if no cluster is named or it does not answer.
    """

    def __init__(self) -> None:
        for name in ("job.sdk", "dashboard_sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        self._address = _probed()
        with self._errors():
            self._client = _Client()

    def submit(self, name: str, command: str, notes: Mapping[str, str]) -> tuple[Job, bool]:
        """Starts a job, unless one of the same name has not ended; Ray accepts an id once, so that there are never two.

        Args:
            name: of the job; its id is the name and a number.
            command: of the shell, run on the head.
            notes: kept with the job.

        Returns:
            The job, and whether it is new.
        """
        until = time.monotonic() + _AGENT_SECONDS
        while True:
            jobs = self._numbered(name)
            running = next((job for job in jobs.values() if not job.ended), None)
            if running is not None:
                return running, False
            identity = f"{name}-{max(jobs, default=0) + 1}"
            with self._errors():
                try:
                    self._client.submit_job(entrypoint=command, submission_id=identity, metadata=dict(notes))
                    return Job(identity, "waiting", notes=notes), True
                except RuntimeError as error:
                    if not re.search("already exists|No available agent", str(error)) or time.monotonic() > until:
                        raise
            time.sleep(_PAUSE_SECONDS)  # another submission was first, or the head's agent has not started yet

    def running(self, name: str) -> Job | None:
        """The job of this name that has not ended, if there is one."""
        return next((job for job in self._numbered(name).values() if not job.ended), None)

    def job(self, identity: str) -> Job | None:
        """The state of a job; None if the cluster does not know it."""
        with self._errors():
            try:
                return _job(self._client.get_job_info(identity))
            except RuntimeError as error:
                if "does not exist" in str(error):
                    return None
                raise

    def log(self, identity: str) -> str:
        """What a job has printed."""
        with self._errors():
            return self._client.get_job_logs(identity)

    def _numbered(self, name: str) -> dict[int, Job]:
        with self._errors():
            listed = self._client.list_jobs()
        numbers = ((re.fullmatch(rf"{re.escape(name)}-(\d+)", each.submission_id or ""), each) for each in listed)
        return {int(match[1]): _job(each) for match, each in numbers if match}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RayError, RuntimeError, OSError, ValueError) as error:
            if isinstance(error, ClusterError):
                raise
            raise messages.explain(error, self._address) from error


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        state=_STATES[details.status.value],
        message=(details.message or "").partition(", last available logs")[0],
        exit_code=details.driver_exit_code,
        notes=details.metadata or {},
    )


def _probed() -> Address:
    """The address in the environment; Ray would wait for minutes where nothing answers."""
    text = os.environ.get(DASHBOARD) or os.environ.get("RAY_ADDRESS") or "local"
    if text.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{text.rstrip('/')}/api/version", timeout=addresses.PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it answers: the client explains what is wrong
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"Ray's dashboard does not answer ({getattr(error, 'reason', error)})",
                where=text,
                fix="start the cluster, open the tunnel with `ray dashboard cluster.yaml`, or correct the address",
            ) from error
        return Address(text, "other")
    address = addresses.parse(text)
    if address.kind == "local":
        raise ClusterError(
            "no cluster is named",
            where="RAY_ADDRESS",
            fix=f"export RAY_ADDRESS=HOST:PORT, or {DASHBOARD}=http://127.0.0.1:8265 with a tunnel to the head; "
            "on this machine use rave-dist run",
        )
    if address.kind == "cluster":
        addresses.probe(address)
    return address
