"""Presets: named configurations on top of RAVE's own, with the default window and batch of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rave_dist.records import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Default window (samples) and batch (windows per step) of a configuration."""

    window: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A name for stock configurations and overrides, applied in order."""

    config: tuple[str, ...]
    override: Mapping[str, Any] = field(default_factory=dict)
    defaults: Defaults


PRESETS: Mapping[str, Preset] = {
    # For a laptop and for the demo: audible results in minutes on two cores. The KL term starts near zero, as in v2: under
    # v2_small's constant 0.01 the latent means of a short run stay near zero, and a decoder without biases is silent at zero.
    # Small batches: early in training the number of steps matters more than their size.
    "v2_tiny": Preset(
        config=("v2_small",),
        override={
            "CAPACITY": 8,
            "LATENT_SIZE": 16,
            "rave.BetaWarmupCallback.initial_value": 1e-6,
            "rave.BetaWarmupCallback.target_value": 1e-4,
        },
        defaults=Defaults(window=65536, batch=2),
    ),
}

FIDELITY = 0.95
"""Share of the latent variance that exports keep; the default of ``rave export``."""

STOCK = Defaults(window=131072, batch=8)


def defaults(config: Sequence[str]) -> Defaults:
    """Window and batch for a list of configurations: a preset's own, else RAVE's (131072 samples, 8)."""
    for name in config:
        if name in PRESETS:
            return PRESETS[name].defaults
    return STOCK


def accumulation_choices(batch: int) -> list[int]:
    """Numbers of equal parts into which a batch can be divided, in ascending order."""
    return [parts for parts in range(1, batch + 1) if batch % parts == 0]


def smaller_batch(spec: TrainingSpec, fitting: int) -> str:
    """The fix for a step that does not fit the memory.

    Args:
        spec: the run.
        fitting: the largest number of windows that fits; 0 if not even one does. Every worker needs one.
    """
    if fitting < spec.workers:
        return "use a smaller configuration, or a machine with more memory"
    auto = "" if spec.batch == "auto" else ", or batch: auto, which accumulates gradients over parts that fit"
    return f"set batch: {fitting}{auto}"
