"""A run in small before the run: what would fail in the night fails in the first minute.

One optimizer step of each kind, a validation, a checkpoint, a resume and an export, all at the run's own shapes, with a model
that is thrown away. What is tried depends on the configuration, the way to compute and the memory alone, so that a store keeps
a note of each rehearsal that went well and it is not done twice.

With ``batch: auto`` it also finds in how few equal parts a step fits the memory. On a GPU sizes are tried here. On a CPU each
has a process of its own: once an allocation has failed in a process its
convolutions cannot allocate any more, and where the system ends a process instead, it is not this one.
"""

from __future__ import annotations

import logging
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from rave_dist import isolated
from rave_dist.errors import RaveDistError, TrainingError
from rave_dist.identity import content_id
from rave_dist.rave.config import configure
from rave_dist.rave.presets import accumulation_choices, smaller_batch, window_and_batch
from rave_dist.records import DryRunResult, RunFolder, TrainingSpec, now
from rave_dist.storage.store import Store
from rave_dist.training.data.loader import PcmSegment
from rave_dist.training.evaluation.latent_pca import fit_latent
from rave_dist.training.evaluation.validation import validate
from rave_dist.training.preflight.throwaway_run import ThrowawayRun
from rave_dist.training.state import checkpoint
from rave_dist.training.state.async_checkpoint import on_host
from rave_dist.training.state.outputs import save_weights
from rave_dist.training.step.cuda_graph import CudaGraphStep
from rave_dist.training.step.memory import device_name, is_out_of_memory, usable_bytes

Export = Callable[[Path, Path], object]
"""Exports a model from a local run folder (spec, configuration, weights) to another folder."""

logger = logging.getLogger(__name__)

_CODE = 2  # raised when a rehearsal tries more than before
_THREADS_BYTES = 3 * 2**27  # of address space, which glibc takes for the threads that save, listen and write curves


def dry_run(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device,
    export: Export | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int | None:
    """Tries everything that a run will do, unless this store has a note that it works.

    Args:
        store: where the note is kept.
        spec: the run.
        train_segments: PCM to train on.
        validation_segments: PCM held out.
        device: where the run will compute.
        export: makes a model's files; without, that part is left out.
        stop: asked between the parts; when true, the rehearsal ends and leaves nothing.

    Returns:
        In how many parts a step is to be computed: the fewest that fit if ``spec.batch`` is ``auto``, otherwise 1. None if it
        was asked to stop.

    Raises:
        TrainingError: a step does not fit the memory; the fix is the largest batch that does.
        ConfigurationError: the configuration makes no model, the window is too short for it, or it cannot be exported.
        VerificationError: an export does not do what its model does.
    """
    key, batch = _note_key(spec, device, export), window_and_batch(spec)[1]
    if store.exists(key):
        return DryRunResult.load(store, key).accumulation_steps
    stage = _Stage(spec, device, stop)
    elsewhere = _Elsewhere(spec, _samples(train_segments), _samples(validation_segments), psutil.Process().memory_info().vms)

    def fits(batch: int, accumulation_steps: int = 1) -> bool:
        return (
            elsewhere.fits(batch, accumulation_steps, stop)
            if device.type == "cpu"
            else _fits(lambda: stage.steps(batch, accumulation_steps))
        )

    try:
        with torch.random.fork_rng():
            accumulation_steps = (
                next((n for n in accumulation_choices(batch) if fits(batch, n)), None) if spec.batch == "auto" else 1
            )
            if accumulation_steps is None or not _fits(
                lambda: stage.play(batch, accumulation_steps, train_segments, validation_segments, export)
            ):
                largest = _largest(batch // accumulation_steps, fits) if accumulation_steps else 0
                raise TrainingError(
                    f"a training step does not fit the memory of {device_name(device)}",
                    where=spec.instrument,
                    fix=smaller_batch(spec, largest),
                )
    except isolated.Stopped:
        return None
    if accumulation_steps > 1:
        logger.warning(
            "%s: a step of %d windows does not fit the memory of %s: it is computed in %d parts of %d",
            *(spec.instrument, batch, device_name(device), accumulation_steps, batch // accumulation_steps),
        )
    result = DryRunResult(
        instrument=spec.instrument, device=device_name(device), accumulation_steps=accumulation_steps, at=now()
    )
    result.save(store, key)
    return accumulation_steps


def forget(store: Store, spec: TrainingSpec, *, device: torch.device, export: Export | None = None) -> None:
    """Withdraws the note of a rehearsal that a run did not bear out, so that the next one tries anew what fits."""
    store.delete(_note_key(spec, device, export))


def _note_key(spec: TrainingSpec, device: torch.device, export: Export | None) -> str:
    window, batch = window_and_batch(spec)
    tried = {
        **{"code": _CODE, "config": _config_text(spec), "channels": spec.channels, "window": window, "batch": batch},
        **{"compute": sorted(spec.compute), "device": device_name(device), "torch": torch.__version__},
        **{"memory": usable_bytes(device), "auto": spec.batch == "auto", "export": export is not None},
    }
    return DryRunResult.key(content_id(tried))


def _config_text(spec: TrainingSpec) -> str:
    return configure(spec.config, spec.override, sample_rate=spec.sample_rate, channels=spec.channels)


def _largest(batch: int, fits: Callable[[int], bool]) -> int:
    """The largest of the sizes below ``batch`` that fits; 0 where not even one window does."""
    fitting, too_large = 0, batch
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        if fits(middle):
            fitting = middle
        else:
            too_large = middle
    return fitting


def _fits(part: Callable[[], object]) -> bool:
    """Plays a part; whether the memory sufficed. Nothing of it is held afterwards, not even by an error's traceback."""
    try:
        part()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _samples(segments: Sequence[PcmSegment]) -> int:
    return sum(segment.pcm.shape[-1] for segment in segments)


class _Stage:
    """Where a run is rehearsed: models as its own, thrown away afterwards."""

    def __init__(self, spec: TrainingSpec, device: torch.device, stop: Callable[[], bool]) -> None:
        self.spec, self.device, self._stop = spec, device, stop
        self.config_text, self.window = _config_text(spec), window_and_batch(spec)[0]

    def play(
        self,
        batch: int,
        accumulation_steps: int,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        export: Export | None,
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="rave-dist-rehearsal-") as name:
            folder = Path(name)
            trial, done = self.steps(batch, accumulation_steps)
            validate(trial.model, validation_segments, window=self.window, device=self.device)
            self._listen()
            saved: dict[str, Any] = {"model": trial.model.state_dict(), "training": trial.training_step.state_dict()}
            saved["bests"] = {phase: on_host(saved["model"]) for phase in (1, 2)}
            checkpoint.save_checkpoint(Store(str(folder)), "checkpoints", done, saved)
            del trial, saved  # a resume begins with an empty device; what is loaded stands for the copies that a run keeps
            self._listen()

            loaded = checkpoint.load_checkpoint(Store(str(folder)), "checkpoints")
            assert loaded is not None
            trial = self._throwaway_run(batch, accumulation_steps)
            trial.model.load_state_dict(loaded[1]["model"])
            trial.training_step.load_state_dict(loaded[1]["training"])
            trial.step(done)
            self._listen()
            fit_latent(trial.model, train_segments, window=self.window, device=self.device)
            self._listen()
            if export is not None:
                self._export(trial.model, folder, export)

    def steps(self, batch: int, accumulation_steps: int) -> tuple[ThrowawayRun, int]:
        """A step of phase 1, then all kinds of phase 2, often enough to be recorded; also the number of the next step."""
        trial = self._throwaway_run(batch, accumulation_steps)
        rounds = 1 + CudaGraphStep.FIRST if "cuda-graphs" in self.spec.compute else 1
        for number in (*[0] * rounds, *[*range(1, 1 + trial.cycle)] * rounds):
            self._listen()
            trial.step(number)
        self._listen()
        return trial, 1 + trial.cycle

    def _throwaway_run(self, batch: int, accumulation_steps: int) -> ThrowawayRun:
        return ThrowawayRun(
            self.config_text,
            channels=self.spec.channels,
            window=self.window,
            batch=batch,
            device=self.device,
            compute=self.spec.compute,
            accumulation_steps=accumulation_steps,
        )

    def _listen(self) -> None:
        if self._stop():
            raise isolated.Stopped

    def _export(self, model: Any, folder: Path, export: Export) -> None:
        run = RunFolder(folder / "run")
        (folder / "run").mkdir()
        Path(run.spec).write_text(self.spec.model_dump_json())
        Path(run.config).write_text(self.config_text)
        save_weights(model, Path(run.weights))
        export(folder / "run", folder / "out")


@dataclass(frozen=True)
class _Elsewhere:
    """Fresh processes that dry_run a run on a CPU, with noise for audio. ``held`` is the address space that the run's process
    has taken, in bytes, which counts where that is limited."""

    spec: TrainingSpec
    train_samples: int
    validation_samples: int
    held: int

    def fits(self, batch: int, accumulation_steps: int, stop: Callable[[], bool]) -> bool:
        """Whether the memory suffices. Also true where it fails for another reason, which the run's own process will meet."""
        request = {
            **{
                "spec": self.spec.to_json(),
                "batch": batch,
                "accumulation_steps": accumulation_steps,
                "threads": torch.get_num_threads(),
            },
            **{"train": self.train_samples, "validation": self.validation_samples, "held": self.held},
        }
        try:
            return bool(isolated.run(f"{__name__}:try_out", request, environment={"CUDA_VISIBLE_DEVICES": ""}, stop=stop))
        except isolated.ProcessDied as error:
            return error.exit_code >= 0  # otherwise the system has ended it
        except RaveDistError:
            return True


@dataclass(frozen=True)
class _Noise:
    pcm: npt.NDArray[np.int16]


def try_out(
    *, spec: dict[str, Any], batch: int, accumulation_steps: int, threads: int, train: int, validation: int, held: int
) -> bool:
    """In the child process: a dry run with so many samples of noise; whether the memory sufficed."""
    run = TrainingSpec.model_validate(spec)
    torch.set_num_threads(threads)
    stage = _Stage(run, torch.device("cpu"), lambda: False)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        missing = max(0, held - psutil.Process().memory_info().vms)
        resource.setrlimit(resource.RLIMIT_AS, (soft - missing - _THREADS_BYTES, hard))
    random = np.random.default_rng(0)
    noise = [[_Noise(random.integers(-3000, 3000, (run.channels, length), np.int16))] for length in (train, validation)]
    return _fits(lambda: stage.play(batch, accumulation_steps, noise[0], noise[1], None))
