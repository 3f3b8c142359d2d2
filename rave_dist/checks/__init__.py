"""What a library would train, what is wrong with it and the smallest fix, before any work.

A check is a function that takes a `Candidate` and yields findings; it belongs to the list ``CHECKS`` of its module.
"""

from rave_dist.checks.findings import Finding
from rave_dist.checks.library import check_library
from rave_dist.checks.results import InstrumentCheck, LibraryCheck

__all__ = ["Finding", "InstrumentCheck", "LibraryCheck", "check_library"]
