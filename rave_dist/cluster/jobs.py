"""Jobs of a cluster: programs that it runs on its own, whatever becomes of the machine that submits them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rave_dist.cluster.dashboard import Dashboard

State = Literal["waiting", "running", "succeeded", "failed", "stopped"]

_AGENT_SECONDS = 180.0
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


class Jobs:
    """The jobs of the cluster of ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``.

    Raises:
        ClusterError: by every method, if no cluster is named or it does not answer.
    """

    def __init__(self) -> None:
        self._dashboard = Dashboard()
        self._client = self._dashboard.client

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
            with self._dashboard.errors():
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
        with self._dashboard.errors():
            try:
                return _job(self._client.get_job_info(identity))
            except RuntimeError as error:
                if "does not exist" in str(error):
                    return None
                raise

    def log(self, identity: str) -> str:
        """What a job has printed."""
        with self._dashboard.errors():
            return self._client.get_job_logs(identity)

    def _numbered(self, name: str) -> dict[int, Job]:
        with self._dashboard.errors():
            listed = self._client.list_jobs()
        numbers = ((re.fullmatch(rf"{re.escape(name)}-(\d+)", each.submission_id or ""), each) for each in listed)
        return {int(match[1]): _job(each) for match, each in numbers if match}


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        state=_STATES[details.status.value],
        message=(details.message or "").partition(", last available logs")[0],
        exit_code=details.driver_exit_code,
        notes=details.metadata or {},
    )
