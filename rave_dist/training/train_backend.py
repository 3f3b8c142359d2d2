"""What Ray Train prepares for the workers of a run; a module of its own because this import takes a second."""

from __future__ import annotations

from ray.train.backend import Backend, BackendConfig


class _SharedDevices(Backend):
    share_cuda_visible_devices = True


class SharedDevices(BackendConfig):
    """Each worker sees the cards of all workers on its host, so that NCCL can copy between them directly."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that Ray Train instantiates."""
        return _SharedDevices
