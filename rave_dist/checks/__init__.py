"""Checks of a library before any work: the planned runs, the problems and their fixes.

A check is a function of a `Candidate` that yields findings; it belongs to the list ``CHECKS`` of its module.
"""

from rave_dist.checks.findings import Finding
from rave_dist.checks.library import check_library
from rave_dist.checks.results import InstrumentCheck, LibraryCheck

__all__ = ["Finding", "InstrumentCheck", "LibraryCheck", "check_library"]
