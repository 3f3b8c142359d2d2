"""The hosts of a cluster from what the dashboard, the autoscaler and the launcher's log say of them; without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from rave_dist.cluster.inventory import HostReport, report
from rave_dist.cluster.launches import Launch


def _node(address: str, state: str = "ALIVE", *, started: int = 1, head: bool = False, message: str = "") -> dict[str, Any]:
    return {
        "node_ip": address,
        "is_head_node": head,
        "state": state,
        "state_message": message or None,
        "start_time_ms": started,
        "resources_total": {"CPU": 8.0, "GPU": 1.0} if state == "ALIVE" else {},
    }


def _wants(*addresses: str) -> dict[str, Any]:
    return {"nodeTypeMapping": dict.fromkeys(addresses, "local.cluster.node"), "pendingNodes": []}


def _launch(command: str, *output: str, ended: bool = True, succeeded: bool = False) -> Launch:
    launch = Launch("worker", command, ended=ended, succeeded=succeeded)
    launch.output.extend(output)
    return launch


def _worker(nodes: list[dict[str, Any]], wanted: bool, launch: Launch | None) -> HostReport:
    known = report(
        [_node("head", head=True), *nodes], _wants("head", *["worker"] * wanted), {"worker": launch} if launch else {}
    )
    assert [host.address for host in known] == ["head", "worker"]
    return known[1]


def test_hosts_that_are_there_with_their_resources() -> None:
    head, worker = report([_node("worker"), _node("head", head=True)], {}, {})
    assert (head.address, head.role, head.state) == ("head", "head", "alive")
    assert (worker.role, worker.cpus, worker.gpus, worker.is_missing) == ("worker", 8.0, 1.0, False)


@pytest.mark.parametrize(
    ("nodes", "wanted", "launch", "state", "reason", "missing"),
    [
        ([], True, None, "starting", "has not begun", False),
        ([], True, _launch("make data", "loading", ended=False), "starting", "being set up", False),
        ([], True, _launch("uptime", ended=False), "starting", "being set up", False),
        ([], True, _launch("uptime", "ssh: no route", ended=False), "unreachable", "SSH does not answer", True),
        ([], True, _launch("uptime", "ssh: no route"), "failed", "SSH did not answer", True),
        ([], True, _launch("make data", "no disk"), "failed", "its set-up failed", True),
        ([], False, _launch("make data", "no disk"), "failed", "its set-up failed", True),  # its cloud has ended the host
        ([_node("worker", "DEAD", message="no heartbeats")], True, None, "lost", "Ray lost it (no heartbeats)", True),
        ([_node("worker", "DEAD")], False, None, "removed", "its Ray has ended", False),
        ([_node("worker", "DEAD")], True, _launch("ray start", ended=True, succeeded=True), "lost", "has ended", True),
        ([_node("worker", "DEAD")], True, _launch("uptime", "ssh: no route", ended=False), "lost", "SSH does not answer", True),
        ([_node("worker", "DEAD", started=1), _node("worker", started=2)], True, _launch("uptime"), "alive", "", False),
        ([_node("worker", started=1), _node("worker", "DEAD", started=2)], True, None, "alive", "", False),
    ],
)
def test_a_host_that_is_not_there_has_a_reason(
    nodes: list[dict[str, Any]], wanted: bool, launch: Launch | None, state: str, reason: str, missing: bool
) -> None:
    host = _worker(nodes, wanted, launch)
    assert (host.state, host.is_missing) == (state, missing)
    assert reason in host.reason
    assert bool(host.fix) == missing


def test_a_failure_is_shown_with_its_command_and_lines_and_whose_they_may_be() -> None:
    launch = _launch("make data", "no disk")
    host = _worker([], True, launch)
    assert (host.command, host.output) == ("make data", ("no disk",))
    assert host.to_json()["output"] == ["no disk"]
    launch.mixed_with.add("other")
    assert "may be from other" in _worker([], True, launch).reason
    launch.own_output.append("no disk")
    assert "may be" not in _worker([], True, launch).reason
