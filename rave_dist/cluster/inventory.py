"""The hosts that a cluster should have, seen from its dashboard: which are there, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rave_dist.cluster import launches
from rave_dist.cluster.dashboard import Dashboard
from rave_dist.cluster.launches import Launch
from rave_dist.errors import ClusterError

HostState = Literal["alive", "starting", "unreachable", "failed", "lost", "removed"]

_AGAIN = "repair it, then run `ray up cluster.yaml` again"
_NO_SSH = "start it, or correct its address, user or key in cluster.yaml, then run `ray up cluster.yaml` again"


@dataclass(frozen=True, kw_only=True)
class HostReport:
    """A host of a cluster.

    Attributes:
        address: at which the head reaches it.
        role: head or worker.
        state: ``alive``; ``starting``, being set up; ``unreachable`` by SSH; ``failed``, its set-up has; ``lost`` after it was
            alive; ``removed``, no longer part of the cluster.
        cpus: that Ray has on it.
        gpus: that Ray has on it.
        reason: why it is not alive, in a sentence.
        command: of the set-up that runs or has failed.
        output: the last lines of the command.
        fix: what to do.
    """

    address: str
    role: Literal["head", "worker"] = "worker"
    state: HostState
    cpus: float = 0.0
    gpus: float = 0.0
    reason: str = ""
    command: str = ""
    output: tuple[str, ...] = ()
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "output": list(self.output)}

    @property
    def is_missing(self) -> bool:
        """Whether the cluster should have it, and will not without help."""
        return self.state in ("unreachable", "failed", "lost")


def hosts_of_cluster() -> list[HostReport]:
    """The hosts of the cluster of ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``, the head first.

    Raises:
        ClusterError: no cluster is named, it does not answer, or its autoscaler has ended.
    """
    dashboard = Dashboard()
    nodes = dashboard.get("/api/v0/nodes?detail=1&limit=10000")["data"]["result"]["result"]
    status = dashboard.get("/api/cluster_status")["data"]
    head = next((node["node_id"] for node in nodes if node["is_head_node"] and node["state"] == "ALIVE"), None)
    if head is None or status.get("clusterStatus") is None:  # started by hand, without `ray up`
        return report(nodes, {}, {})
    if status.get("autoscalingError"):
        raise ClusterError(
            f"the cluster's autoscaler has ended ({status['autoscalingError'].strip().splitlines()[-1]})",
            where=dashboard.address,
            fix="run `ray up cluster.yaml` again",
        )
    log, errors = (dashboard.log(head, name) for name in ("monitor.out", "monitor.err"))
    return report(nodes, status["clusterStatus"].get("autoscalerReport") or {}, launches.read(log, errors))


def report(nodes: list[dict[str, Any]], autoscaler: Mapping[str, Any], launched: Mapping[str, Launch]) -> list[HostReport]:
    """Joins what is known of the hosts.

    Args:
        nodes: of Ray, dead ones included.
        autoscaler: its report: the hosts that it wants, and those that are not there yet.
        launched: by address.
    """
    latest: dict[str, dict[str, Any]] = {}
    for node in sorted(nodes, key=lambda node: (node["state"] == "ALIVE", node.get("start_time_ms") or 0)):
        latest[node["node_ip"]] = node
    wanted = set(autoscaler.get("nodeTypeMapping") or ()) | {pending[0] for pending in autoscaler.get("pendingNodes") or ()}
    found = [
        _report(address, latest.get(address), launched.get(address), address in wanted)
        for address in {**latest, **dict.fromkeys(sorted(wanted)), **launched}
    ]
    return sorted(found, key=lambda host: (host.role != "head", host.address))


def _report(address: str, node: dict[str, Any] | None, launch: Launch | None, is_wanted: bool) -> HostReport:
    role: Literal["head", "worker"] = "head" if node and node["is_head_node"] else "worker"
    if node and node["state"] == "ALIVE":
        resources = node.get("resources_total") or {}
        return HostReport(
            address=address, role=role, state="alive", cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0)
        )
    ended = (node and node.get("state_message")) or ""
    state: HostState = "lost" if is_wanted else "removed"
    gone = HostReport(address=address, role=role, state=state, reason=_lost(ended), fix=_AGAIN if is_wanted else "")
    if launch is None:
        return gone if node else HostReport(address=address, role=role, state="starting", reason="its set-up has not begun")
    if launch.failed:
        return _failed(address, launch)
    if launch.ended:
        return gone
    if launch.waits_for_ssh and (node or launch.output):
        what = "; ".join([*([_lost(ended)] if node else []), "SSH does not answer"])
        state = "lost" if node else "unreachable"
        return HostReport(address=address, role=role, state=state, reason=what, output=launch.said, fix=_NO_SSH)
    return HostReport(
        address=address, role=role, state="starting", reason="being set up", command=launch.command, output=launch.said
    )


def _lost(message: str) -> str:
    return f"Ray lost it ({message.strip()})" if message.strip() else "its Ray has ended"


def _failed(address: str, launch: Launch) -> HostReport:
    if launch.waits_for_ssh:
        return HostReport(address=address, state="failed", reason="SSH did not answer", output=launch.said, fix=_NO_SSH)
    reason = "its set-up failed"
    if launch.mixed_with and not launch.own_output:
        reason += f"; some lines may be from {', '.join(sorted(launch.mixed_with))}, set up at the same time"
    return HostReport(address=address, state="failed", reason=reason, command=launch.command, output=launch.said, fix=_AGAIN)
