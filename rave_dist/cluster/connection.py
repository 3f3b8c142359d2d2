"""Context manager that starts Ray or connects to it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from rave_dist import signals
from rave_dist.cluster import address as addresses
from rave_dist.cluster import messages, preflight
from rave_dist.cluster.address import Address
from rave_dist.temporary import remove_abandoned

logger = logging.getLogger(__name__)

STARTS = 3
"""Number of attempts to start an embedded Ray."""

_PAUSE_SECONDS = 2.0
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

# Longer than Ray's defaults of 10 to 30 seconds, which a busy machine exceeds. Other limits of Ray have no setting: for those
# the start is retried.
_PATIENT = {
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "180",
    "RAY_gcs_server_request_timeout_seconds": "120",
    "RAY_raylet_client_num_connect_attempts": "60",
}


class _Chatter(io.TextIOBase):
    """Loggers of Ray that would print on standard output, which is for results only."""

    def write(self, text: str) -> int:
        logger.debug("%s", text.rstrip())
        return len(text)


@contextmanager
def connected(*, dashboard: bool = False, say: Callable[[str], None] = logger.warning) -> Iterator[bool]:
    """Connects to Ray in a context: an existing connection, the cluster of ``RAY_ADDRESS``, or an embedded Ray.

    An embedded Ray listens on loopback only, requires a token, and ends with the context. A cluster and an existing
    connection are left unchanged.

    Args:
        dashboard: whether an embedded Ray starts its dashboard, which costs three CPU-seconds and a gigabyte.
        say: receives sentences for the user: a retry, and the Ray that ``auto`` found.

    Yields:
        Whether Ray ends with the context.

    Raises:
        ClusterError: the named cluster does not respond, or Ray cannot start here.
    """
    if ray.is_initialized():
        yield False
        return
    address = addresses.from_environment()
    remove_abandoned()
    with signals.keeping_sigterm():
        if address.kind == "local":
            _start(dashboard, say)
        else:
            _join(address, say)
    with redirect_stdout(_Chatter()):  # the shutdown included, when Ray prints delayed messages
        try:
            yield address.kind == "local"
        finally:
            ray.shutdown()


def _start(dashboard: bool, say: Callable[[str], None]) -> None:
    """Starts an embedded Ray, up to `STARTS` times."""
    preflight.check_all()
    options: dict[str, Any] = {
        "include_dashboard": dashboard,
        "dashboard_host": "127.0.0.1",
        # Workers started in advance cost a third of a CPU-second each and are mostly not used.
        "_system_config": {"enable_worker_prestart": False},
    }
    with _private_and_patient():
        for attempt in range(1, STARTS + 1):
            failure = _attempt(options)
            if failure is None:
                return
            if attempt == STARTS or not messages.is_worth_another_try(failure):
                raise messages.explain(failure, Address("local", "local")) from failure
            say(f"Ray did not start ({messages.first_line(failure)}); trying again, {attempt + 1} of {STARTS}")
            time.sleep(_PAUSE_SECONDS)


def _attempt(options: dict[str, Any]) -> BaseException | None:
    """One start of an embedded Ray; returns the error that Ray raised."""
    before = set(psutil.Process().children())
    try:
        _init("local", options)
    except BaseException as error:
        _end_attempt(before)
        if _is_rays(error):
            return error
        raise
    return None


def _join(address: Address, say: Callable[[str], None]) -> None:
    """Connects to a running Ray."""
    target = addresses.last_started(preflight.temp_folder()) if address.kind == "auto" else address
    if target is not None and target.kind == "cluster":
        addresses.probe(target)
    try:
        _init(address.text, {})
    except BaseException as error:
        if _is_rays(error):
            raise messages.explain(error, address) from error
        raise
    if address.kind == "auto":
        say(f"joined the Ray at {ray.get_runtime_context().gcs_address}")


def _init(address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except SystemExit as ending:  # Ray's own handling of SIGTERM during its start
        raise signals.Terminated from ending


def _is_rays(error: BaseException) -> bool:
    """Whether an error is Ray's, which raises plain Exception when a node takes too long to start."""
    return type(error) is Exception or isinstance(error, RayError | OSError | RuntimeError | ValueError)


@contextmanager
def _private_and_patient() -> Iterator[None]:
    """Sets Ray's environment for a start: token, loopback, longer time limits; values set by the user are kept."""
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled

    wanted = {**_PATIENT, "RAY_AUTH_MODE": "token", _LOOPBACK_ONLY: "0"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    # Both were read when Ray was imported. Without clusters Ray's ports are on loopback; with, they are open to the network.
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[_LOOPBACK_ONLY] == "1"
    Config.initialize("")
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name in ours.keys() - {"RAY_AUTH_MODE"}:  # which clients of this Ray need
            del os.environ[name]


def _end_attempt(before: set[psutil.Process]) -> None:
    """Kills the processes of a failed start, which Ray no longer tracks."""
    ray.shutdown()
    started = [child for child in psutil.Process().children() if child not in before and _is_of_ray(child)]
    with contextlib.suppress(psutil.Error):
        started += [below for child in started for below in child.children(recursive=True)]
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(started, timeout=1.0)


def _is_of_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("/ray/" in argument for argument in process.cmdline())
    return False
