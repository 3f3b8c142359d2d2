"""The one door to Ray: an embedded one for this machine, or the cluster that ``RAY_ADDRESS`` names."""

from __future__ import annotations

from rave_dist.cluster.connection import connected

__all__ = ["connected"]
