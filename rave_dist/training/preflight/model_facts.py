"""Facts of a model and its training step, measured before any training.

RAVE's configuration is global to a process, so each one is inspected in a separate process. The calling side imports neither
torch nor RAVE.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from rave_dist import isolated
from rave_dist.errors import ConfigurationError, MisfitError, RaveDistError
from rave_dist.identity import canonical_json
from rave_dist.rave.compatibility import check_effective, name_culprit
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import TrainingSpec
from rave_dist.storage.facts_cache import keep_facts, read_facts
from rave_dist.training.host_memory import peak_bytes, reset_peak
from rave_dist.training.schedule import StepTimes

if TYPE_CHECKING:
    import torch

    from rave_dist.training.state.initialization import InitialWeights

_TIMEOUT_SECONDS = 900.0
_WORTH_REPEATING_SECONDS = 3.0
_PER_PARAMETER = 16  # bytes: weight, gradient, and Adam's two moments
_GROWN_PER_PARAMETER = 12  # bytes: all except the weight, which exists before the first step


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model and of a step on one window.

    ``window_bytes`` is the memory of a step per window, without weights, gradients and moments, in the phase that needs more.
    The seconds are those of a step with one window on one of this machine's cores. The receptive field is in samples, left and
    right. ``whole_batch`` names what several workers cannot compute; empty if nothing.
    """

    parameters: int
    latent_size: int
    hop: int
    receptive_field: tuple[int, int]
    window_bytes: int
    phase_1_seconds: float
    phase_2_seconds: float
    whole_batch: str = ""

    def step_bytes(self, batch: int) -> int:
        """Memory of a training step: weights, gradients, optimizer moments, and that of every window."""
        return _PER_PARAMETER * self.parameters + batch * self.window_bytes

    def step_times(self, batch: int) -> StepTimes:
        """Seconds of a step of each phase on one core, proportional to the number of windows."""
        return StepTimes(batch * self.phase_1_seconds, batch * self.phase_2_seconds)


def measure_model(spec: TrainingSpec, start: InitialWeights | None = None) -> ModelFacts:
    """Facts of the model and the training step of a run; measured once for each configuration and machine.

    Measured in a fresh process and kept in the user's cache (`rave_dist.storage.facts_cache`).

    Args:
        spec: the run.
        start: its initial weights.

    Raises:
        ConfigurationError: the configuration, an override or the window is invalid, the model could not be exported, or the
            initial weights have another architecture.
    """
    request: dict[str, Any] = {
        "config": list(spec.config),
        "override": spec.override,
        "sample_rate": spec.sample_rate,
        "channels": spec.channels,
        "window": StepConfig.of(spec).window,
        "base": start and {"origin": start.origin, "shapes": start.shapes},
    }
    # The origin of the weights only affects error messages.
    kept_under = {**request, "base": start and start.shapes}
    try:
        return _FACTS.validate_python(read_facts(kept_under))
    except ValidationError:
        pass
    answer = _ask(canonical_json(request))
    if "error" in answer:
        raise ConfigurationError(answer["error"]["what"], where=answer["error"]["where"], fix=answer["error"]["fix"])
    facts = _FACTS.validate_python(answer)
    keep_facts(kept_under, asdict(facts))
    return facts


_FACTS = TypeAdapter(ModelFacts)


@functools.cache
def _ask(request: bytes) -> dict[str, Any]:
    """Errors are part of the result, so that they are cached too."""
    try:
        answer: dict[str, Any] = isolated.run(
            f"{__name__}:answer_to",
            {"request": json.loads(request)},
            environment={"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            timeout=_TIMEOUT_SECONDS,
        )
    except isolated.TimedOut as error:
        raise ConfigurationError(
            f"a training step on one window takes more than {_TIMEOUT_SECONDS:.0f} s here",
            fix="use a smaller configuration, or train on a machine with a GPU",
        ) from error
    except isolated.ProcessDied as error:
        raise ConfigurationError(f"the model could not be inspected ({error.last_words})") from error
    return answer


@functools.cache
def has_gpu() -> bool:
    """Whether torch finds a GPU on this machine, determined in a fresh process."""
    try:
        return bool(isolated.run(f"{__name__}:cuda_is_available", {}))
    except isolated.ProcessDied:
        return False


def cuda_is_available() -> bool:
    """In the child process: torch's result."""
    import torch

    return torch.cuda.is_available()


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """In the child process: an inspection as JSON values, or ``error`` with what, where and fix."""
    try:
        return asdict(_inspect_together(**request))
    except RaveDistError as error:
        return {"error": {"what": error.what, "where": error.where, "fix": error.fix}}


def _inspect_together(*, config: list[str], override: dict[str, Any], **facts: Any) -> ModelFacts:
    """An inspection that reports the configuration or override that causes an error or has no effect."""
    from rave_dist.rave.config import configure, settings_read
    from rave_dist.rave.overrides import statements

    form = {"sample_rate": facts["sample_rate"], "channels": facts["channels"]}

    def known(config: Sequence[str], override: Mapping[str, Any]) -> dict[str, Any]:
        """The overrides without those of parameters of an omitted configuration."""
        kept = {}
        for key, value in override.items():
            with contextlib.suppress(ConfigurationError):
                configure(config, {key: value}, **form)
                kept[key] = value
        return kept

    def works(config: Sequence[str], override: Mapping[str, Any]) -> bool:
        try:
            _inspect(config=config, override=known(config, override), **facts)
        except ConfigurationError as error:
            return error.where == "window"  # an unrelated error
        return True

    def settings(config: Sequence[str]) -> Mapping[str, str]:
        return statements(configure(config, known(config, override), **form))

    try:
        found = _inspect(config=config, override=override, **facts)
    except MisfitError as error:
        raise name_culprit(error, config, override, works=works) from error
    check_effective(config, settings=settings, read=settings_read())
    return found


def _inspect(*, config: Sequence[str], **facts: Any) -> ModelFacts:
    from rave_dist.training.step.memory import is_out_of_memory

    try:
        return _measure(config=config, **facts)
    except RaveDistError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # networks with incompatible shapes
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "leave out one of the configurations or overrides: they cannot be combined"
        raise MisfitError(f"RAVE cannot train this model: {said}", where=", ".join(config), fix=fix) from error


def _measure(
    *,
    config: Sequence[str],
    override: Mapping[str, Any],
    sample_rate: int,
    channels: int,
    window: int,
    base: dict[str, Any] | None,
) -> ModelFacts:
    import torch

    from rave_dist.rave.config import configure
    from rave_dist.rave.exportable import OfflineRave, check_exportable
    from rave_dist.rave.models import build_model
    from rave_dist.rave.window import check_window, latent_hop
    from rave_dist.training.evaluation.receptive_field import set_receptive_field
    from rave_dist.training.state.checkpoint import load_weights
    from rave_dist.training.step.division import needs_whole_batch
    from rave_dist.training.step.training_step import TrainingStep

    torch.set_num_threads(1)
    text = configure(config, override, sample_rate=sample_rate, channels=channels)
    if base is not None:  # in a separate model, because steps on zeros take another time
        shapes = {name: torch.zeros(shape) for name, shape in base["shapes"].items()}
        load_weights(build_model(text, channels=channels), shapes, where=base["origin"])
    model = build_model(text, channels=channels)
    check_exportable(model)
    left, right = set_receptive_field(model)
    check_window(model, window)
    reset_peak()
    before = peak_bytes()
    training_step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device="cpu")
    cycle = int(model.update_discriminator_every)
    audio = 0.1 * torch.randn(1, channels, window)

    def seconds(step: int) -> float:
        taken = _timed(training_step, audio, step)
        # The first one also allocates memory and chooses algorithms.
        return taken if taken > _WORTH_REPEATING_SECONDS else _timed(training_step, audio, step)

    # One step of a cycle of phase 2 trains the discriminator: here step number `cycle`.
    phase_1, generator, discriminator = seconds(0), seconds(1), seconds(cycle)
    grown = peak_bytes() - before
    parameters = sum(parameter.numel() for parameter in model.parameters())
    hop = latent_hop(model)
    OfflineRave(model.eval())  # refuses, before training, models that cannot be exported
    return ModelFacts(
        parameters=parameters,
        latent_size=int(model.latent_size),
        hop=hop,
        receptive_field=(left, right),
        window_bytes=max(0, grown - _GROWN_PER_PARAMETER * parameters),
        phase_1_seconds=phase_1,
        phase_2_seconds=((cycle - 1) * generator + discriminator) / cycle,
        whole_batch=needs_whole_batch(model),
    )


def _timed(training_step: Any, audio: torch.Tensor, step: int) -> float:
    # CPU time of the one thread: it is kept for later, and must not depend on what else the machine does now.
    began = time.process_time()
    training_step(audio, step)
    return time.process_time() - began
