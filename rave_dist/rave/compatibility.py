"""Which configurations and overrides can be combined, and which of them have no effect.

RAVE's small configurations (``snake``, ``wasserstein`` …) set parameters of networks that a full configuration uses.
Combined with one that uses other networks they cause an error about arguments and shapes or, worse, are ignored: gin
silently accepts parameters of networks that are never built. The culprit is found by leaving out one configuration or
override at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rave_dist.errors import ConfigurationError, MisfitError

_REASONS = {
    "noise": "it adds noise to the bands that v2's decoder makes",
    "wasserstein": "it makes its own kind of latent space of v2's encoder",
    "spherical": "it makes its own kind of latent space of v2's encoder",
    "snake": "it changes the networks of v2",
    "adain": "it changes the networks of v2",
    "spectral_discriminator": "it adds one to the discriminators that v2 combines",
    "hybrid": "its models take a mel spectrogram as input and cannot run in real time",
}
_MADE_FOR_V2 = _REASONS.keys() - {"hybrid"}

Works = Callable[[Sequence[str], Mapping[str, Any]], bool]


def name_culprit(error: MisfitError, config: Sequence[str], override: Mapping[str, Any], *, works: Works) -> ConfigurationError:
    """Explains a misfit by the one configuration, otherwise the one override, without which it disappears.

    Args:
        error: the misfit.
        config: names, the last one added last.
        override: the run's.
        works: whether a model of a configuration and overrides can be built and trained.
    """
    for index in reversed(range(1, len(config))):
        rest = [*config[:index], *config[index + 1 :]]
        if works(rest, override):
            return _conflict(config[index], rest, "cannot be combined with")
    for key in override:
        if works(config, {other: value for other, value in override.items() if other != key}):
            return ConfigurationError(
                f"{key}: {override[key]} cannot be combined with {' and '.join(config)}: {error.what}",
                where="override",
                fix=f"leave out {key}, or change what it must match",
            )
    return error


def check_effective(
    config: Sequence[str], *, settings: Callable[[Sequence[str]], Mapping[str, str]], read: Collection[str]
) -> None:
    """Refuses a configuration that has no effect on the model; one that only repeats present values is accepted.

    Args:
        config: names, the last one added last.
        settings: what a list of configurations sets.
        read: the settings that were read when the model was built and trained.

    Raises:
        ConfigurationError: with the name.
    """
    together = settings(config)
    for index in range(1, len(config)):
        rest = [*config[:index], *config[index + 1 :]]
        try:
            without = settings(rest)
        except ConfigurationError:  # the full configuration
            continue
        changed = {key for key in together.keys() | without.keys() if together.get(key) != without.get(key)}
        if changed and changed.isdisjoint(read):
            raise _conflict(config[index], rest, "has no effect with")


def _conflict(name: str, rest: Sequence[str], what: str) -> ConfigurationError:
    reason = _REASONS.get(name)
    return ConfigurationError(
        f"{name} {what} {' and '.join(rest)}" + (f": {reason}" if reason else ""),
        where="config",
        fix=f"leave out {name}" + (f", or use it with v2: config: [v2, {name}]" if name in _MADE_FOR_V2 else ""),
    )
