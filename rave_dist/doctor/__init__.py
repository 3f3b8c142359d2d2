"""Examines a machine, its packages and a store: one line per check, ok or the fix.

A check is a function of a `Request` that yields `Diagnosis` records; it belongs to the list ``CHECKS`` of its module.
"""

from rave_dist.doctor.diagnosis import Diagnosis, Request
from rave_dist.doctor.examine import examine

__all__ = ["Diagnosis", "Request", "examine"]
