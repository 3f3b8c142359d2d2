"""Peak memory of this process, without the files that it maps, whose pages processes share.

The kernel's ``ru_maxrss`` does not serve: in a new process it begins with the peak of the process that started it.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = ("VmHWM", "RssFile", "RssShmem")  # of all resident memory; present size of files and of shared memory


def reset_peak() -> None:
    """Makes the present memory the peak, on Linux; elsewhere the peak stays that of the process's whole life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_bytes() -> int:
    """The peak of this process's own memory since its start, or since `reset_peak`."""
    try:
        lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
        sizes = {name: 1024 * int(value.split()[0]) for name, _, value in lines if name in _PEAK}
        resident, *shared = (sizes[name] for name in _PEAK)
        return max(0, resident - sum(shared))
    except (OSError, KeyError):  # another system
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
