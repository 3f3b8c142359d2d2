"""Hosts a Ray cluster of one node with a busy actor; says as JSON lines where it is, and on ``draining`` which nodes drain.

``free`` ends the actor, ``end head`` the head, and says what the driver then finds; the end of standard input ends everything.
"""

import json
import sys
import time

import psutil
import ray
from ray.cluster_utils import Cluster

from rave_dist.cluster import head
from rave_dist.cluster.hosts import Cluster as Known
from rave_dist.errors import ClusterError

SOON_SECONDS = 20.0


@ray.remote(num_cpus=1)
class Busy:
    def pid(self) -> int:
        return 1


def _draining() -> dict[str, int]:
    """The deadlines of the nodes that Ray drains; fails if we do not soon see the same nodes."""
    deadlines: dict[str, int] = ray._private.state.state.get_draining_nodes()
    given_up = time.monotonic() + SOON_SECONDS
    while Known.now().draining != deadlines.keys():
        assert time.monotonic() < given_up
        time.sleep(0.1)
    return deadlines


def _problem() -> str:
    head.HEAD_SECONDS = 2.0
    try:
        return f"{Known.now()}"
    except ClusterError as error:
        return str(error)


def main() -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    )
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        actor = Busy.remote()
        ray.get(actor.pid.remote())
        print(json.dumps({"address": cluster.address, "node": cluster.head_node.node_id}), flush=True)
        for line in sys.stdin:
            if line.strip() == "draining":
                print(json.dumps(_draining()), flush=True)
            elif line.strip() == "free":
                ray.kill(actor)
            elif line.strip() == "end head":
                (server,) = cluster.head_node.all_processes["gcs_server"]
                psutil.Process(server.process.pid).kill()
                print(json.dumps(_problem()), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
