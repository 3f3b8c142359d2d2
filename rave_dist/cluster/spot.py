"""``python -m rave_dist.cluster.spot``: drains the Ray nodes of this host when its cloud, or SIGTERM, gives notice of its end.

Runs on each host that may be reclaimed, from the start of its Ray to its end. A drained node's runs save their state and
continue on other hosts; Ray then ends the node.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError

from rave_dist.cluster.notices import METADATA, Cloud, Notice, recognise
from rave_dist.errors import ClusterError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_RECOGNISE_SECONDS = 60.0
_RPC_SECONDS = 5.0
_PREEMPTION = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class LocalNode:
    """A Ray node of this host: its id, the address of its cluster, and its process."""

    id: str
    cluster: str
    process: psutil.Process

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        try:
            return bool(self.process.is_running()) and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def local_nodes(cluster: str | None = None) -> list[LocalNode]:
    """The Ray nodes of this host, from the arguments of their processes.

    Args:
        cluster: HOST:PORT; only the nodes of this cluster.
    """
    nodes = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet":
            options = dict(argument.partition("=")[::2] for argument in process.info["cmdline"] or ())
            node, address = options.get("--node_id"), options.get("--gcs-address")
            if node and address and cluster in (None, address):
                nodes.append(LocalNode(node, address, process))
    return nodes


def drain(node: LocalNode, notice: Notice) -> None:
    """Tells a node's cluster that the node will end.

    Raises:
        ClusterError: the cluster does not answer, or refuses.
    """
    deadline = max(notice.deadline, time.time() + 1)  # Ray refuses one in the past
    try:
        accepted, reason = GcsClient(address=node.cluster).drain_node(
            node.id, _PREEMPTION, notice.reason, int(deadline * 1000), timeout=_RPC_SECONDS
        )
    except (RayError, RuntimeError) as error:
        accepted, reason = False, str(error)
    if not accepted:
        raise ClusterError(
            f"the node was not drained ({reason})",
            where=node.cluster,
            fix="check that the head runs, and that the watcher was started with the token of the cluster",
        )


class Watcher:
    """Waits for notice and drains nodes; `watch` returns when they have ended.

    Args:
        nodes: of this host.
        metadata: address of the cloud's metadata service.
        grace_seconds: how long the host lives after SIGTERM.
    """

    def __init__(self, nodes: Sequence[LocalNode], metadata: str, grace_seconds: float) -> None:
        self._nodes, self._metadata, self._grace = nodes, metadata, grace_seconds
        self._cloud: Cloud | None = None
        self._recognise_at = 0.0
        self._said = ""

    def watch(self) -> None:
        """Polls until notice is given, drains, and waits for the nodes to end, at most until the deadline after SIGTERM."""
        notice, todo, terminated = None, list(self._nodes), False
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # it is waited for below
        while any(node.is_alive for node in self._nodes):
            notice = notice or self._ask()
            if notice is not None:
                todo = [node for node in todo if not self._drain(node, notice)]
                if terminated and time.time() > notice.deadline:
                    return
            if signal.sigtimedwait([signal.SIGTERM], _POLL_SECONDS) is not None:
                if terminated:
                    return
                terminated = True
                notice = notice or Notice("SIGTERM", time.time() + self._grace)
        logger.info("the Ray nodes of this host have ended")

    def _ask(self) -> Notice | None:
        if self._cloud is None and time.monotonic() >= self._recognise_at:
            self._cloud = recognise(self._metadata)
            self._recognise_at = time.monotonic() + _RECOGNISE_SECONDS
            self._say(f"asking {self._cloud.name}" if self._cloud else "no cloud answers, waiting for SIGTERM")
        if self._cloud is None:
            return None
        try:
            notice = self._cloud.notice(self._metadata)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self._say(f"{self._cloud.name} does not answer, asking again ({error!r})")
            return None
        self._say(f"asking {self._cloud.name}")
        return notice

    def _say(self, state: str) -> None:
        """Logs a state once."""
        if state != self._said:
            logger.info("%s", state)
            self._said = state

    def _drain(self, node: LocalNode, notice: Notice) -> bool:
        """Whether nothing remains to be asked of a node."""
        if not node.is_alive:
            return True
        try:
            drain(node, notice)
        except ClusterError as error:
            self._say(f"{error.where}: {error.what}; trying again")
            return False
        logger.info("draining %s: %s in %.0f s", node.id, notice.reason, notice.deadline - time.time())
        return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the watcher, and exits the process.

    Args:
        arguments: the command-line arguments; None uses those of the process.
    """
    parser = argparse.ArgumentParser("python -m rave_dist.cluster.spot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", metavar="HOST:PORT", help="only nodes of this cluster; all nodes of this host by default")
    parser.add_argument("--metadata", metavar="URL", default=METADATA, help="the cloud's metadata service (%(default)s)")
    parser.add_argument("--grace-seconds", type=float, default=30.0, help="how long the host lives after SIGTERM (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stdout)
    nodes = local_nodes(options.address)
    if not nodes:
        sys.exit(str(ClusterError("no Ray node runs on this host", where=options.address, fix="run `ray start` first")))
    logger.info("watching over %s, as process %d", ", ".join(node.id for node in nodes), os.getpid())
    Watcher(nodes, options.metadata, options.grace_seconds).watch()


if __name__ == "__main__":
    main()
