"""Memory: detecting that a device is out of memory, and how much a step needs."""

from __future__ import annotations

import resource

import psutil
import torch

from rave_dist.scheduling.cards import CPU
from rave_dist.training import host_memory

_FULL = ("can't allocate memory", "could not create a primitive")  # PyTorch's allocator; oneDNN


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
