"""What is wrong with a machine, its packages or a store, before a night's work: one line each, ok or the fix.

A check is a function that takes a `Request` and yields `Diagnosis` records; it belongs to the list ``CHECKS`` of its module.
"""

from rave_dist.doctor.diagnosis import Diagnosis, Request
from rave_dist.doctor.examine import examine

__all__ = ["Diagnosis", "Request", "examine"]
