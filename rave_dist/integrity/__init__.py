"""Whether a store is whole: its records, the files that they name, and the bytes of these."""

from rave_dist.integrity.verify import verify

__all__ = ["verify"]
