"""A dry run before a run, so that errors appear in the first minute.

One optimizer step of each kind, a validation, a checkpoint, a resume and an export, with the run's shapes and a model that is
discarded. The result depends only on the configuration, the arithmetic and the memory, so successful dry runs are stored and
not repeated.

With ``batch: auto`` it also finds the smallest number of accumulation steps that fits the memory. On a GPU the numbers are
tested in this process. On a CPU each is tested in a fresh process: after a failed allocation a process cannot allocate memory
for convolutions any more, or the system may kill it.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from rave_dist import isolated
from rave_dist.errors import InsufficientMemoryError, RaveDistError
from rave_dist.identity import content_id
from rave_dist.rave.presets import accumulation_choices, smaller_batch
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import DryRunResult, RunFolder, TrainingSpec, now
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder
from rave_dist.training.data.loader import PcmSegment
from rave_dist.training.evaluation.latent_pca import fit_latent
from rave_dist.training.evaluation.validation import validate
from rave_dist.training.preflight.dry_run_results import find_result
from rave_dist.training.preflight.throwaway_run import ThrowawayRun
from rave_dist.training.state import checkpoint
from rave_dist.training.state.async_checkpoint import on_host
from rave_dist.training.state.outputs import save_weights
from rave_dist.training.step.cuda_graph import CudaGraphStep
from rave_dist.training.step.memory import PeakMemory, device_name, is_out_of_memory, usable_bytes

Export = Callable[[Path, Path], object]
"""Exports a model from a local run folder (spec, configuration, weights) to another folder."""

logger = logging.getLogger(__name__)

_CODE = 3  # increased when a dry run tests more than before
_NOISE_SECONDS = 60  # the memory of a run does not depend on the length of its audio beyond that
_THREADS_BYTES = 3 * 2**27  # of address space, which glibc reserves for the threads of checkpoints, heartbeat and metrics


def dry_run(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device,
    export: Export | None = None,
    stop: Callable[[], bool] = lambda: False,
    peak: PeakMemory | None = None,
) -> DryRunResult:
    """Tests every part of a run, unless the store has the result of an equal dry run; of several workers the first one does.

    Args:
        store: of the result.
        spec: the run.
        train_segments: PCM of the training audio.
        validation_segments: PCM of the held-out audio.
        device: of the run.
        export: exports a model; None skips that part.
        stop: called between the parts.
        peak: the memory of the process; None to measure it from now on.

    Returns:
        The result; its number of accumulation steps is the smallest that fits if ``spec.batch`` is ``auto``, otherwise 1.

    Raises:
        isolated.Stopped: ``stop`` returned True.
        InsufficientMemoryError: a step does not fit the memory; the fix is the largest batch that does.
        ConfigurationError: the configuration or the window is invalid, or the model cannot be exported.
        VerificationError: the export differs from its model.
    """
    whole, test_id, limit_bytes = StepConfig.of(spec), _test_id(spec, device, export), usable_bytes(device)
    config = whole.of_one_worker()
    known = find_result(store, test_id, limit_bytes)
    if known is not None:
        return known
    peak = peak or PeakMemory(device)
    here = _DryRun(spec, device, stop)
    elsewhere = _IsolatedDryRuns(
        spec, _samples(train_segments), _samples(validation_segments), psutil.Process().memory_info().vms
    )

    def fits(config: StepConfig) -> bool:
        return elsewhere.fit(config, stop) if device.type == "cpu" else _fits(lambda: here.steps(config))

    with torch.random.fork_rng():
        fitting: StepConfig | None = config
        if spec.batch == "auto":
            choices = (replace(config, accumulation_steps=n) for n in accumulation_choices(whole.batch // whole.workers))
            fitting = next((choice for choice in choices if fits(choice)), None)
        if fitting is None or not _fits(lambda: here.run(fitting, train_segments, validation_segments, export)):
            raise InsufficientMemoryError(
                f"a training step does not fit the memory of {device_name(device)}",
                where=spec.instrument,
                fix=smaller_batch(spec, whole.workers * _largest_batch(fitting, fits) if fitting else 0),
            )
    accumulation_steps = fitting.accumulation_steps
    if accumulation_steps > 1:
        logger.warning(
            "%s: a step of %d windows does not fit the memory of %s: it is computed in %d parts of %d",
            *(spec.instrument, config.batch, device_name(device), accumulation_steps, config.batch // accumulation_steps),
        )
    result = DryRunResult(
        id=f"{test_id}-{limit_bytes}",
        instrument=spec.instrument,
        device=device_name(device),
        accumulation_steps=accumulation_steps,
        limit_bytes=limit_bytes,
        device_bytes=peak.device_bytes,
        host_bytes=peak.host_bytes,
        cpus=round(here.cpus, 2),
        at=now(),
    )
    result.save(store, result.key)
    return result


def delete_result(store: Store, spec: TrainingSpec, *, device: torch.device, export: Export | None = None) -> None:
    """Deletes the result of an equal dry run, because a worker of the run was out of memory.

    Raises:
        StoreError: the store is not available.
    """
    result = find_result(store, _test_id(spec, device, export), usable_bytes(device))
    if result is not None:
        store.delete(result.key)


def _test_id(spec: TrainingSpec, device: torch.device, export: Export | None) -> str:
    config = StepConfig.of(spec).of_one_worker()
    tried = {
        **{"code": _CODE, "config": config.config_text, "channels": config.channels},
        **{"window": config.window, "batch": config.batch, "compute": sorted(config.compute)},
        **{"device": device_name(device), "torch": torch.__version__},
        **{"auto": spec.batch == "auto", "export": export is not None},
    }
    if spec.losses:
        tried["losses"] = spec.losses
    return f"{spec.worker_step_id}-{content_id(tried)}"


def _largest_batch(config: StepConfig, fits: Callable[[StepConfig], bool]) -> int:
    """The largest fitting batch below the given one, halved repeatedly; 0 if not even one window fits."""
    fitting, too_large = 0, config.batch // config.accumulation_steps
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        if fits(replace(config, batch=middle, accumulation_steps=1)):
            fitting = middle
        else:
            too_large = middle
    return fitting


def _fits(part: Callable[[], object]) -> bool:
    """Runs a part and returns whether the memory sufficed; frees its memory, also that of an error's traceback."""
    try:
        part()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _samples(segments: Sequence[PcmSegment]) -> int:
    return sum(segment.pcm.shape[-1] for segment in segments)


class _DryRun:
    """A dry run in this process, with models that are discarded.

    Attributes:
        cpus: CPU-seconds per second of the last `steps`.
    """

    def __init__(self, spec: TrainingSpec, device: torch.device, stop: Callable[[], bool]) -> None:
        self._spec, self._device, self._stop = spec, device, stop
        self.cpus = 0.0

    def run(
        self,
        config: StepConfig,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        export: Export | None,
    ) -> None:
        """Steps, a validation, a checkpoint, a resumed step, the latent axes, and the export.

        Raises:
            isolated.Stopped: ``stop`` returned True.
        """
        with temporary_folder("dry-run") as name:
            folder = Path(name)
            throwaway, done = self.steps(config)
            validate(throwaway.model, validation_segments, window=config.window, device=self._device)
            self._raise_if_stopped()
            live = {"model": throwaway.model.state_dict(), "training": throwaway.training_step.state_dict()}
            saved = on_host(live)
            saved["bests"] = {phase: on_host(saved["model"]) for phase in (1, 2)}
            held = on_host(live)  # the next state, which a run provides while it writes one
            checkpoint.save_checkpoint(Store(str(folder)), "checkpoints", done, saved)
            # A resumed run starts with an empty device; the loaded state replaces the copies that a run keeps.
            del throwaway, live, saved, held
            self._raise_if_stopped()

            loaded = checkpoint.load_checkpoint(Store(str(folder)), "checkpoints")
            assert loaded is not None
            throwaway = ThrowawayRun(config, device=self._device)
            throwaway.model.load_state_dict(loaded[1]["model"])
            throwaway.training_step.load_state_dict(loaded[1]["training"])
            throwaway.step(done)
            self._raise_if_stopped()
            fit_latent(throwaway.model, train_segments, window=config.window, device=self._device)
            self._raise_if_stopped()
            if export is not None:
                self._export(throwaway.model, config, folder, export)

    def steps(self, config: StepConfig) -> tuple[ThrowawayRun, int]:
        """A step of phase 1, then all kinds of phase 2, often enough for CUDA graphs; also returns the next step's number."""
        throwaway = ThrowawayRun(config, device=self._device)
        began, busy = time.perf_counter(), time.process_time()
        rounds = 1 + CudaGraphStep.FIRST if "cuda-graphs" in config.compute else 1
        for number in (*[0] * rounds, *[*range(1, 1 + throwaway.cycle)] * rounds):
            self._raise_if_stopped()
            throwaway.step(number)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.cpus = (time.process_time() - busy) / (time.perf_counter() - began)
        self._raise_if_stopped()
        return throwaway, 1 + throwaway.cycle

    def _raise_if_stopped(self) -> None:
        if self._stop():
            raise isolated.Stopped

    def _export(self, model: Any, config: StepConfig, folder: Path, export: Export) -> None:
        run = RunFolder(folder / "run")
        (folder / "run").mkdir()
        Path(run.spec).write_text(self._spec.model_dump_json())
        Path(run.config).write_text(config.config_text)
        save_weights(model, Path(run.weights))
        export(folder / "run", folder / "out")


@dataclass(frozen=True)
class _IsolatedDryRuns:
    """Dry runs on a CPU in fresh processes, with noise as audio.

    ``held`` is the address space of the run's process in bytes, which counts if it is limited.
    """

    spec: TrainingSpec
    train_samples: int
    validation_samples: int
    held: int

    def fit(self, config: StepConfig, stop: Callable[[], bool]) -> bool:
        """Whether the memory suffices; also True after another error, which the run's process will report."""
        request = {
            "spec": self.spec.to_json(),
            "batch": config.batch,
            "accumulation_steps": config.accumulation_steps,
            "threads": torch.get_num_threads(),
            "train": self.train_samples,
            "validation": self.validation_samples,
            "held": self.held,
        }
        try:
            return bool(isolated.run(f"{__name__}:try_out", request, environment={"CUDA_VISIBLE_DEVICES": ""}, stop=stop))
        except isolated.ProcessDied as error:
            return error.exit_code >= 0  # otherwise the system has killed it
        except RaveDistError:
            return True


@dataclass(frozen=True)
class _Noise:
    pcm: npt.NDArray[np.int16]


def try_out(
    *, spec: dict[str, Any], batch: int, accumulation_steps: int, threads: int, train: int, validation: int, held: int
) -> bool:
    """In the child process: a dry run with noise as audio; returns whether the memory sufficed."""
    run = TrainingSpec.model_validate(spec)
    torch.set_num_threads(threads)
    config = replace(StepConfig.of(run), batch=batch, accumulation_steps=accumulation_steps)
    _ = config.config_text  # imports RAVE, as the run's process has done before its memory is measured
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        missing = max(0, held - psutil.Process().memory_info().vms)
        resource.setrlimit(resource.RLIMIT_AS, (soft - missing - _THREADS_BYTES, hard))
    random = np.random.default_rng(0)
    lengths = [min(length, max(_NOISE_SECONDS * run.sample_rate, config.window)) for length in (train, validation)]
    noise = [[_Noise(random.integers(-3000, 3000, (run.channels, length), np.int16))] for length in lengths]
    here = _DryRun(run, torch.device("cpu"), lambda: False)
    return _fits(lambda: here.run(config, noise[0], noise[1], None))
