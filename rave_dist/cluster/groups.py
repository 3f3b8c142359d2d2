"""Placement groups that outlive the actor which made them.

Ray frees such a group only when the job ends. Ray Train has a detached actor for each of its controllers that frees the group
of a dead one, but that asks the dashboard, which not every cluster has, and then neither frees the group nor ends.
"""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def remove_orphaned_groups() -> int:
    """Frees the placement groups of this job whose actor is dead; returns how many there were."""
    # `ray.util.placement_group_table` leaves out whose a group is.
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]  # generated

    job = ray.get_runtime_context().get_job_id()
    removed = 0
    for group in map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table()):
        if group.creator_job_id.hex() == job and group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
