"""A run in small before the run: what would fail in the night fails in the first minute.

One optimizer step of each kind, a validation, a checkpoint, a resume and an export, all at the run's own shapes, with a model
that is thrown away. What is tried depends on the configuration, the way to compute and the device alone, so that a store keeps
a note of each rehearsal that went well and it is not done twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rave_dist import upstream
from rave_dist.errors import TrainingError
from rave_dist.identity import content_id
from rave_dist.records import TrainingSpec, now
from rave_dist.storage import Store
from rave_dist.training import checkpoint
from rave_dist.training.batches import PcmSegment
from rave_dist.training.memory import device_name, is_out_of_memory
from rave_dist.training.result import save_weights
from rave_dist.training.step import TrainingStep, check_window
from rave_dist.training.validation import fit_latent, set_receptive_field, validate
from rave_dist.training.variants import window_and_batch

Export = Callable[[Path, Path], object]
"""Makes a model's files of a run folder (``spec.json``, ``config.gin``, ``weights.pt``) in another folder."""

_LEVEL = 0.1
_CODE = 1  # raised when a rehearsal tries more than before


def rehearse(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device,
    export: Export | None = None,
) -> bool:
    """Tries everything that a run will do, unless this store has a note that it works.

    Args:
        store: where the note is kept.
        spec: the run.
        train_segments: PCM to train on.
        validation_segments: PCM held out.
        device: where the run will compute.
        export: makes a model's files; without, that part is left out.

    Returns:
        Whether anything had to be tried.

    Raises:
        TrainingError: a step does not fit the memory; the fix is the largest batch that does.
        ConfigurationError: the configuration makes no model, the window is too short for it, or it cannot be exported.
        VerificationError: an export does not do what its model does.
    """
    window, batch = window_and_batch(spec)
    config_text = upstream.configure(spec.config, spec.override, sample_rate=spec.sample_rate, channels=spec.channels)
    tried = {
        **{"code": _CODE, "config": config_text, "channels": spec.channels, "window": window, "batch": batch},
        **{"compute": sorted(spec.compute), "device": device_name(device), "torch": torch.__version__},
        "export": export is not None,
    }
    key = f"rehearsals/{content_id(tried)}.json"
    if store.exists(key):
        return False
    stage = _Stage(spec, config_text, window, device)
    if not _fits(lambda: stage.play(batch, train_segments, validation_segments, export)):
        fitting = next((size for size in _halves(batch) if device.type == "cpu" or _fits(partial(stage.steps, size))), None)
        fix = f"set batch: {fitting}" if fitting else "take a smaller configuration, or a machine with more memory"
        raise TrainingError(f"a training step does not fit the memory of {device_name(device)}", where=spec.instrument, fix=fix)
    store.write_json(key, {"instrument": spec.instrument, "device": tried["device"], "at": now()})
    return True


# On a CPU a half is a guess: what a failed step leaves of the address space does not tell what fits in a fresh process.
def _halves(batch: int) -> Iterator[int]:
    while batch > 1:
        batch //= 2
        yield batch


def _fits(part: Callable[[], object]) -> bool:
    """Plays a part; whether the memory sufficed. Nothing of it is held afterwards, not even by an error's traceback."""
    try:
        part()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


class _Stage:
    """Where a run is rehearsed: models as its own, thrown away afterwards."""

    def __init__(self, spec: TrainingSpec, config_text: str, window: int, device: torch.device) -> None:
        self.spec, self.config_text, self.window, self.device = spec, config_text, window, device

    def play(
        self,
        batch: int,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        export: Export | None,
    ) -> None:
        with torch.random.fork_rng(), tempfile.TemporaryDirectory(prefix="rave-dist-rehearsal-") as name:
            folder = Path(name)
            model, training_step, done = self.steps(batch)
            validate(model, validation_segments, window=self.window, device=self.device)
            saved: dict[str, Any] = {"model": model.state_dict(), "training": training_step.state_dict()}
            checkpoint.save_checkpoint(Store(str(folder)), "checkpoints", done, saved)
            del model, training_step, saved  # a resume begins with an empty device

            loaded = checkpoint.load_checkpoint(Store(str(folder)), "checkpoints")
            assert loaded is not None
            model = self._model()
            training_step = self._training_step(model)
            model.load_state_dict(loaded[1]["model"])
            training_step.load_state_dict(loaded[1]["training"])
            training_step(self._noise(batch), done)
            fit_latent(model, train_segments, window=self.window, device=self.device)
            if export is not None:
                self._export(model, folder, export)

    def steps(self, batch: int) -> tuple[Any, TrainingStep, int]:
        """A step of phase 1, then all kinds of phase 2; the model, its step and how many were done."""
        model = self._model()
        set_receptive_field(model)
        check_window(model, self.window)
        training_step = self._training_step(model)
        count = 1 + int(model.update_discriminator_every)
        for step in range(count):
            training_step(self._noise(batch), step)
        return model, training_step, count

    def _model(self) -> Any:
        return upstream.build_model(self.config_text, channels=self.spec.channels).to(self.device)

    def _training_step(self, model: Any) -> TrainingStep:
        return TrainingStep(model, phase_1_steps=1, warmup_steps=1, device=self.device, compute=self.spec.compute)

    def _noise(self, batch: int) -> torch.Tensor:
        return _LEVEL * torch.randn(batch, self.spec.channels, self.window, device=self.device)

    def _export(self, model: Any, folder: Path, export: Export) -> None:
        run = folder / "run"
        run.mkdir()
        (run / "spec.json").write_text(self.spec.model_dump_json())
        (run / "config.gin").write_text(self.config_text)
        save_weights(model, run / "weights.pt")
        export(run, folder / "out")
