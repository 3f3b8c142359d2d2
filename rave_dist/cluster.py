"""The one place that starts or finds Ray: a laptop's own, or the cluster that ``RAY_ADDRESS`` names."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray

from rave_dist.errors import ClusterError

logger = logging.getLogger(__name__)


class _Chatter(io.TextIOBase):
    """Where Ray may print what it thinks of its nodes: on the driver's standard output, where only results belong."""

    def write(self, text: str) -> int:
        logger.debug("%s", text.rstrip())
        return len(text)


@contextmanager
def connected(*, dashboard: bool = False) -> Iterator[bool]:
    """Ray for the length of a block: an existing connection, ``RAY_ADDRESS``'s cluster, or an embedded one.

    The embedded one ends with the block; a cluster and an existing connection are left as they are.

    Args:
        dashboard: whether an embedded Ray needs its dashboard, on loopback. Ray Train does: without it, a run whose driver
            dies keeps its CPUs. It costs three CPU-seconds and a gigabyte, so that what is over in seconds goes without.

    Yields:
        Whether all of Ray ends with the block.

    Raises:
        ClusterError: the named cluster does not answer.
    """
    if ray.is_initialized():
        yield False
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        options = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1"}
        # Workers beyond those that are waited for cost a third of a CPU-second each, and mostly nobody comes for them.
        options["_system_config"] = {"enable_worker_prestart": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        # When a node takes too long to start, Ray raises nothing more special than Exception.
        if type(error) is Exception or isinstance(error, ConnectionError | RuntimeError | ValueError):
            busy = "run it again when the machine is less busy"
            raise ClusterError(
                f"Ray does not answer ({str(error).splitlines()[0]})",
                where=address,
                fix=busy if address == "local" else "start the cluster, or unset RAY_ADDRESS to use this machine",
            ) from error
        raise
    with redirect_stdout(_Chatter()):  # the end included: Ray tells then what it has held back
        try:
            yield address == "local"
        finally:
            ray.shutdown()
