"""The dashboard of a cluster, through which jobs are submitted and its hosts are seen, for example in a tunnel to the head."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from rave_dist.cluster import address as addresses
from rave_dist.cluster import messages
from rave_dist.cluster.address import Address
from rave_dist.errors import ClusterError

VARIABLE: Final = "RAY_API_SERVER_ADDRESS"
"""The environment variable with the dashboard's address, for example of a tunnel; Ray prefers it to ``RAY_ADDRESS``."""

_ANSWER_SECONDS = 60.0


class _Client(JobSubmissionClient):
    """Ray's client with a time limit: after a laptop has slept, a connection may stay silent without end."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": _ANSWER_SECONDS, **options})


class Dashboard:
    """The dashboard of the cluster of ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``.

    Raises:
        ClusterError: by every method, if no cluster is named or it does not answer.
    """

    def __init__(self) -> None:
        for name in ("job.sdk", "dashboard_sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        self._address = _probed()
        with self.errors():
            self.client = _Client()

    @property
    def address(self) -> str:
        """The address as it was given."""
        return self._address.text

    def get(self, path: str) -> Any:
        """The answer to a request that only reads, as JSON."""
        with self.errors():
            answer = self._get(path)
            return answer.json()

    def log(self, node: str, name: str) -> str:
        """A file in the folder of logs of a node; empty if there is none.

        Args:
            node: its id.
            name: of the file.
        """
        with self.errors():
            listed = self._get(f"/api/v0/logs?node_id={node}&glob={name}").json()["data"]["result"]
            if not any(name in files for files in listed.values()):
                return ""
            return str(self._get(f"/api/v0/logs/file?node_id={node}&filename={name}&lines=-1").text)

    def _get(self, path: str) -> Any:
        answer = self.client._do_request("GET", path)
        if answer.status_code != 200:
            raise RuntimeError(f"status {answer.status_code}: {answer.text[:500]}")
        return answer

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of Ray's client into `ClusterError`."""
        try:
            yield
        except (RayError, RuntimeError, OSError, ValueError) as error:
            if isinstance(error, ClusterError):
                raise
            raise messages.explain(error, self._address) from error


def _probed() -> Address:
    """The address in the environment; Ray would wait for minutes where nothing answers."""
    text = os.environ.get(VARIABLE) or os.environ.get("RAY_ADDRESS") or "local"
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
            fix=f"export RAY_ADDRESS=HOST:PORT, or {VARIABLE}=http://127.0.0.1:8265 with a tunnel to the head; "
            "on this machine use rave-dist run",
        )
    if address.kind == "cluster":
        addresses.probe(address)
    return address
