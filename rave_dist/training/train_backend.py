"""Ray Train as a run of several workers uses it; a module of its own because these imports take seconds."""

from __future__ import annotations

from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class _SharedDevices(Backend):
    share_cuda_visible_devices = True


class SharedDevices(BackendConfig):
    """Each worker sees the cards of all workers on its host, so that NCCL can copy between them directly."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that Ray Train instantiates."""
        return _SharedDevices


class Trainer(DataParallelTrainer):
    """Ray Train without the actor that is to free the resources of a dead controller.

    That actor asks the dashboard, and where there is none it neither frees them nor ends; `rave_dist.cluster.groups` does it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, PlacementGroupCleanerCallback)]
