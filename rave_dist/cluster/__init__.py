"""All access to Ray: an embedded Ray on this machine, or the cluster of ``RAY_ADDRESS``."""

from __future__ import annotations

from rave_dist.cluster.connection import connected

__all__ = ["connected"]
