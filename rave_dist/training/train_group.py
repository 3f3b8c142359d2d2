"""A run of several workers on Ray: Ray Train starts them on their hosts and ends all when one of them fails.

The checkpoints of the run are objects in the store and not those of Ray Train: they are verified by hash, and a single process
can resume from them. What Ray Train keeps in the store is removed at the end. Further attempts and draining hosts are handled
as for a run of one process, in `rave_dist.training.on_ray`.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import ray

from rave_dist.errors import ClusterError, InsufficientMemoryError, RaveDistError, StoreError, TrainingError
from rave_dist.records import Problem, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Share
from rave_dist.storage.store import Store
from rave_dist.training.process import RESUME, explain, prepare_process

if TYPE_CHECKING:
    from rave_dist.training.preflight.dry_run import Export  # which imports torch and RAVE

_NODE_ID = "ray.io/node-id"
_WRAPPERS = ("health_check_failure", "_base_exc")  # attributes of Ray Train's errors that have a worker's own


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def train_together(store: Store, spec: TrainingSpec, share: Share, export: Export | None, threads: int) -> RunRecord | Problem:
    """Trains or resumes a run in several workers under Ray Train, in a process that outlives them.

    Args:
        store: of the dataset and the run.
        spec: the run.
        share: of the first worker, with those of the others.
        export: exports a run folder in the dry run; None skips that part.
        threads: CPU threads of each worker.

    Returns:
        The run's last record, as `rave_dist.training.worker.work`, or why it cannot continue.

    Raises:
        ClusterError: the workers cannot be started; elsewhere they may.
        StoreError: the store is not available; a further attempt may succeed.
    """
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig  # imported here: these import pandas
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

    from rave_dist.training.train_backend import SharedDevices, Trainer

    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # it would count a run that has saved its state as failed
    resources = {"CPU": share.cpus, "GPU": share.gpus, "memory": share.memory}
    filesystem, path = store.filesystem(spec.folder.train)
    trainer = Trainer(
        _work,
        train_loop_config={"store": store, "spec": spec, "share": share, "export": export, "threads": threads},
        backend_config=SharedDevices(),
        scaling_config=ScalingConfig(
            num_workers=len(share.all),
            use_gpu=share.gpus > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
            label_selector=[{_NODE_ID: one.host} for one in share.all],
        ),
        run_config=RunConfig(  # type: ignore[arg-type]
            name=f"attempt-{uuid.uuid4().hex[:8]}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        result: Any = trainer.fit()
    except ControllerError as error:
        first_line = str(error.controller_failure).partition("\n")[0]
        raise ClusterError(f"the workers of the run could not be started ({first_line})", fix=RESUME) from error
    except TrainingFailedError as error:
        cause = _cause(error)
        if isinstance(cause, RaveDistError) and not isinstance(cause, StoreError):
            return explain(cause)
        raise cause from None
    finally:
        store.delete_folder(spec.folder.train)
    record: RunRecord = result.return_value
    return record


def _work(config: dict[str, Any]) -> RunRecord | None:
    """In each worker's process; the first one returns the record."""
    prepare_process()
    import torch
    from ray.train.collective import broadcast_from_rank_zero
    from ray.train.torch import get_device

    from rave_dist.training.follower import follow
    from rave_dist.training.preflight.dry_run import delete_result
    from rave_dist.training.worker import read_audio, work
    from rave_dist.training.worker_group import WorkerGroup

    store, spec, share, export, threads = (config[name] for name in ("store", "spec", "share", "export", "threads"))
    context, device = ray.train.get_context(), get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with WorkerGroup.connect(
        context.get_world_rank(),
        context.get_world_size(),
        address=ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
        broadcast=broadcast_from_rank_zero,
        device=device,
    ) as group:
        if group.leads:
            record = work(store, spec, threads=threads, gpu_share=share.gpus, export=export, group=group)
            if group.is_in_step and record.error is not None:  # Ray Train then ends the others, which wait within the step
                raise TrainingError(record.error.what, fix=record.error.fix)
            return record
        torch.set_num_threads(threads)
        try:
            follow(spec, lambda: read_audio(store, spec).train, group=group)
        except InsufficientMemoryError:
            delete_result(store, spec, device=device, export=export)
            raise
    return None


def _cause(error: Any) -> BaseException:
    """The error of the worker that failed first: one that only lost the others says nothing."""
    from rave_dist.training.worker_group import WorkerLostError

    causes = [_unwrapped(failure) for failure in getattr(error, "worker_failures", {}).values()]
    return next((cause for cause in causes if not isinstance(cause, WorkerLostError)), (causes or [error])[0])


def _unwrapped(error: BaseException) -> BaseException:
    inner = next((value for name in _WRAPPERS if isinstance(value := getattr(error, name, None), Exception)), None)
    return error if inner is None else _unwrapped(inner)
