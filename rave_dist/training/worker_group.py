"""The workers of one run, which compute each step together; independent of Ray.

The first worker leads: it decides everything that depends on time, on the store or on a person, and tells the others what to
do. They hold the same model, optimizers and random numbers, and never decide anything.

Gradients are added up by plain collectives and not by torch's ``DistributedDataParallel``: a step calls encoder, decoder and
discriminator separately, differentiates some of them, and accumulates over parts of the batch, while that module follows one
``forward`` of one network. It would also average over workers, which is only right for equal parts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

_ON_HOST = torch.device("cpu")
_TIMEOUT = timedelta(days=1)  # a worker that died closes its connections at once; one that measures may take long


class WorkerLostError(RuntimeError):
    """Another worker of the run has ended, so that this one cannot continue."""


class WorkerGroup:
    """One worker's view of its group, over torch's process group; when the first worker leaves the context, the others end.

    Args:
        device: of this worker's computations.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device
        self.is_in_step = False
        """Whether this is the first worker, within a step, where no message reaches the others."""

    @staticmethod
    def connect(
        rank: int, size: int, *, address: str, broadcast: Callable[[Any], Any], device: torch.device = _ON_HOST
    ) -> WorkerGroup:
        """Connects a worker with the others; it only listens on one address, on ports that the system chooses.

        Torch's own rendezvous listens on all interfaces, and gloo and NCCL choose theirs by the host's name or their order.

        Args:
            rank: number of this worker; 0 leads.
            size: number of workers.
            address: IP address of this host by which the others reach it.
            broadcast: gives all workers the argument of the first one, which are small values.
            device: of this worker's computations.
        """
        interface = _interface(address)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
        server = socket.create_server((address, 0)) if rank == 0 else None
        host, port = broadcast(None if server is None else server.getsockname()[:2])
        listening = None if server is None else server.detach()
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, size, is_master=rank == 0, timeout=_TIMEOUT, master_listen_fd=listening
        )
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        return WorkerGroup(device)

    @property
    def leads(self) -> bool:
        """Whether this is the first worker."""
        return self.rank == 0

    def __enter__(self) -> WorkerGroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.leads and not self.is_in_step:
            with suppress(WorkerLostError):
                self.send("end")
        dist.destroy_process_group()

    def add_up(self, value: Tensor) -> Tensor:
        """The sum of a tensor of every worker, bitwise the same for all.

        Raises:
            WorkerLostError: another worker has ended.
        """
        value = value.clone(memory_format=torch.contiguous_format)
        try:
            dist.all_reduce(value)
        except RuntimeError as error:
            raise WorkerLostError(str(error)) from error
        return value

    def send(self, what: str, value: Any = None) -> None:
        """Tells the other workers what to do.

        Args:
            what: one of the words that `rave_dist.training.follower` knows.
            value: its argument; tensors on the CPU.

        Raises:
            WorkerLostError: another worker has ended.
        """
        self._broadcast([(what, value)])

    def receive(self) -> tuple[str, Any]:
        """What the first worker says next.

        Raises:
            WorkerLostError: it has ended, or another one has.
        """
        box: list[Any] = [None]
        self._broadcast(box)
        what, value = box[0]
        return what, value

    def _broadcast(self, box: list[Any]) -> None:
        try:
            dist.broadcast_object_list(box, src=0, device=_ON_HOST)
        except RuntimeError as error:
            raise WorkerLostError(str(error)) from error


def _interface(address: str) -> str:
    """The network interface of this host that has an address."""
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    return next(name for name, own in interfaces.items() if address in [entry.address for entry in own])
