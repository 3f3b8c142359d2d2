"""The hosts of a Ray cluster: starts and ends them as lines of JSON on standard input say, answers each with one.

``{"do": "start", "disk": FOLDER, "cpus": 2, "ports": PORTS}`` starts a host whose temporary files and cache are in FOLDER; the
ports are three free ones, of a dashboard, the host's agent and the head, which the first host is. ``{"do": "end", "host": ID}``
kills all processes of a host at once. ``{"do": "room"}`` says what is there and what is free. The end of standard input ends
everything.
"""

import contextlib
import json
import sys
from typing import Any

import psutil
from ray.cluster_utils import Cluster

ATTEMPTS = 3


class Hosts:
    def __init__(self) -> None:
        self._cluster = Cluster()

    def start(self, disk: str, cpus: int, ports: list[int]) -> dict[str, Any]:
        environment = {"TMPDIR": disk, "RAVE_DIST_CACHE": f"{disk}/cache"}
        options = {"num_cpus": cpus, "object_store_memory": 80 << 20, "env_vars": environment}
        dashboard, options["dashboard_agent_listen_port"], head = ports
        if self._cluster.head_node is None:
            options |= {"gcs_server_port": head, "include_dashboard": False, "dashboard_port": dashboard}
        node = self._add(options)
        return {"address": self._cluster.address, "host": node.node_id}

    def _add(self, options: dict[str, Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return self._cluster.add_node(**options)
            except Exception:  # Ray's own, when a busy machine takes too long
                if attempt == ATTEMPTS - 1:
                    raise
        return None

    def end(self, host: str) -> dict[str, Any]:
        (node,) = [node for node in self._cluster.list_all_nodes() if node.node_id == host]
        processes = []
        for kind, started in node.all_processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                own = [psutil.Process(one.process.pid) for one in started if kind != "reaper"]
                processes += [*own, *(below for one in own for below in one.children(recursive=True))]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)
        return {"killed": len(processes)}

    def room(self) -> dict[str, Any]:
        state = self._cluster.global_state
        nodes = [node for node in state.node_table() if node["Alive"]]
        free = sum(each.get("CPU", 0.0) for each in state.available_resources_per_node().values())
        groups = [group for group in state.placement_group_table().values() if group["state"] != "REMOVED"]
        cpus = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
        return {"hosts": len(nodes), "cpus": cpus, "free": free, "groups": len(groups)}

    def close(self) -> None:
        self._cluster.shutdown()


def main() -> None:
    hosts = Hosts()
    try:
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(getattr(hosts, order.pop("do"))(**order)), flush=True)
    finally:
        hosts.close()


if __name__ == "__main__":
    main()
