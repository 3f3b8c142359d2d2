"""The work of a training process: read the audio, train, and update the record; independent of Ray."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable

import torch

from rave_dist import isolated
from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.split import Split, split_dataset
from rave_dist.errors import InsufficientMemoryError, RaveDistError, StoreError
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import Problem, RunRecord, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import Heartbeat, record_of, sigterm_as_flag, stop_key, termination_requested
from rave_dist.training.preflight.dry_run import Export, dry_run
from rave_dist.training.preflight.dry_run_results import Correction
from rave_dist.training.state.run_state import RunState
from rave_dist.training.step.memory import PeakMemory, device_name, usable_bytes
from rave_dist.training.trainer import train
from rave_dist.training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


def read_audio(store: Store, spec: TrainingSpec, *, stop: Callable[[], bool] = lambda: False) -> Split:
    """The training and the held-out audio of a run, copied to this machine's disk unless it is there.

    Args:
        store: of the dataset.
        spec: the run.
        stop: called again and again during the copy.

    Raises:
        DatasetError: there is no such dataset, or too little audio.
        StoreError: the store is not available.
        isolated.Stopped: ``stop`` returned True.
    """
    manifest = load_manifest(store, spec.instrument, spec.dataset)
    return split_dataset(store, manifest, window=StepConfig.of(spec).window, stop=stop)


def work(
    store: Store,
    spec: TrainingSpec,
    *,
    threads: int,
    gpu_share: float = 0.0,
    alone: bool = True,
    export: Export | None = None,
    group: WorkerGroup | None = None,
) -> RunRecord:
    """Tests a run by a dry run, then trains or resumes it in this process; SIGTERM makes it save its state and stop.

    Args:
        store: of the dataset and the run.
        spec: the run.
        threads: CPU threads.
        gpu_share: the fraction of this process's GPU memory that it may use; 0 to compute on the CPU.
        alone: whether it has all memory of the host, or of the GPU, that a run can have.
        export: exports a run folder in the dry run; None skips that part.
        group: the workers of a run with several, whose first one this is.

    Returns:
        The run's last record: waiting if it was stopped, failed with the reason if it cannot continue, otherwise running,
        because it is not published yet.

    Raises:
        StoreError: the store is not available; a second attempt may succeed.
        InsufficientMemoryError: a step does not fit the run's part of the memory; alone it may.
    """
    torch.set_num_threads(threads)
    device = group.device if group is not None else torch.device("cuda" if gpu_share else "cpu")
    if 0 < gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_share)
    record = record_of(store, spec).model_copy(
        update={
            **{"state": "running", "activity": "starting", "error": None, "threads": threads, "device": device_name(device)},
            **{"worker": f"{socket.gethostname()}:{os.getpid()}", "attempt": uuid.uuid4().hex[:8]},
            **{"gpu_share": gpu_share, "workers": spec.workers},
        }
    )

    correction: Correction | None = None

    def measure() -> dict[str, int]:
        if correction is not None:
            correction.update()
        return {"gpu_bytes": torch.cuda.memory_reserved(device) if gpu_share else 0}

    with sigterm_as_flag(), Heartbeat(store, record, stop=stop_key(spec), measure=measure) as beat:

        def on_progress(state: RunState, speed: float | None) -> None:
            curve = beat.record.curve
            if state.last is not None and curve[-1:] != ((state.validated_step, state.last),):
                curve = beat.record.curve_with(state.validated_step, state.last)
            beat.update(
                phase=state.phase,
                step=state.step,
                steps=max(state.schedule.steps, state.step),
                phase_1_steps=state.schedule.phase_1_steps,
                validation=state.validation,
                curve=curve,
                train_distance=state.train_distance,
                steps_per_second=speed,
                seconds=state.seconds,
                rollbacks=tuple(state.rollbacks),
            )

        def stop() -> bool:
            return beat.stop_requested or termination_requested()

        try:
            beat.update(activity="copying audio")
            audio = read_audio(store, spec, stop=stop)
            beat.update(activity="dry run")
            peak = PeakMemory(device)
            tested = dry_run(store, spec, audio.train, audio.validation, device=device, export=export, stop=stop, peak=peak)
            correction = Correction(store, tested, peak)
            beat.update(activity="training")
            outcome = train(
                store,
                spec,
                audio.train,
                audio.validation,
                device=device,
                accumulation_steps=tested.accumulation_steps,
                on_progress=on_progress,
                stop=stop,
                group=group,
            )
        except isolated.Stopped:
            beat.update(state="waiting", activity=None)
        except StoreError:
            raise
        except RaveDistError as error:
            logger.warning("training %s failed: %s", spec.instrument, error)
            if isinstance(error, InsufficientMemoryError):
                if correction is not None:
                    correction.out_of_memory(usable_bytes(device) if gpu_share and not alone else None)
                if not alone:
                    raise
            beat.update(state="failed", activity=None, error=Problem.of(error), steps_per_second=None)
        else:
            if not outcome.finished:
                beat.update(state="waiting", activity=None, steps_per_second=None)
    return beat.record
