"""Memory: detecting that a device is out of memory, and keeping freed memory between operations on a CPU.

glibc requests every tensor above 32 MiB from the system and returns it when it is freed, and the system clears each page
again: at RAVE's own batch of 8 that is a third of a discriminator step. A training process needs the same memory in its next
step, so it keeps it, at the price of about a tenth more resident memory.
"""

from __future__ import annotations

import ctypes
import resource
import sys

import psutil
import torch

from rave_dist.scheduling.cards import CPU
from rave_dist.training import host_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**31 - 1
_FULL = ("can't allocate memory", "could not create a primitive")  # PyTorch's allocator; oneDNN


def hold_freed_memory() -> bool:
    """Makes this process's allocator keep freed memory; returns whether that is supported (glibc on Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


class PeakMemory:
    """The peak memory of a device and of this process, from now on.

    Args:
        device: of the run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        host_memory.reset_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._before = host_memory.peak_bytes()

    @property
    def host_bytes(self) -> int:
        """Of the process, without files that it maps."""
        return host_memory.peak_bytes()

    @property
    def device_bytes(self) -> int:
        """Of tensors on a GPU; on a CPU, by how much the process grew."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return max(0, self.host_bytes - self._before)


def usable_bytes(device: torch.device) -> int:
    """The memory limit of this process: its share of a GPU, or the machine's memory or a limit of it."""
    if device.type == "cuda":
        share = torch.cuda.get_per_process_memory_fraction(device.index)
        return int(share * torch.cuda.get_device_properties(device).total_memory)
    total, limit = int(psutil.virtual_memory().total), resource.getrlimit(resource.RLIMIT_AS)[0]
    return total if limit == resource.RLIM_INFINITY else min(total, limit)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that a device or the machine is out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _FULL)


def device_name(device: torch.device) -> str:
    """The device's name for users."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else CPU
