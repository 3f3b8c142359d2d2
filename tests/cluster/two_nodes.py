"""Hosts a Ray cluster of two nodes until its standard input closes; prints where it answers as one line of JSON.

Its arguments are three free ports: of the dashboard and of the two nodes' agents.
"""

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    dashboard_port, *agent_ports = map(int, sys.argv[1:])
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "object_store_memory": 300 << 20,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": dashboard_port,
            # Jobs are handed to a node's agent, which does without its HTTP door where the default port is taken.
            "dashboard_agent_listen_port": agent_ports[0],
        },
    )
    try:
        cluster.add_node(num_cpus=2, object_store_memory=300 << 20, dashboard_agent_listen_port=agent_ports[1])
        cluster.wait_for_nodes()
        nodes = [node.node_id for node in cluster.list_all_nodes()]
        ready = {"address": cluster.address, "dashboard": f"http://127.0.0.1:{dashboard_port}", "nodes": nodes}
        print(json.dumps(ready), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
