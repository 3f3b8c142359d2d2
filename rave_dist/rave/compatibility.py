"""Configurations and overrides put together: which of them does not go with the rest, and which changes nothing.

RAVE's smaller configurations (``snake``, ``wasserstein`` …) set values of parts that a whole one uses. Beside one that has
other parts they end in an error that speaks of arguments and shapes, or, worse, in a model without what was asked for: gin sets
values of parts that nobody builds without a word. Which one it is is found by leaving out one after the other.
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
    "hybrid": "its models hear a mel spectrogram, and cannot be played block by block",
}
_MADE_FOR_V2 = _REASONS.keys() - {"hybrid"}

Works = Callable[[Sequence[str], Mapping[str, Any]], bool]


def name_culprit(error: MisfitError, config: Sequence[str], override: Mapping[str, Any], *, works: Works) -> ConfigurationError:
    """A misfit explained by the one configuration, else the one override, without which there is none.

    Args:
        error: the misfit.
        config: names, the last one added last.
        override: the run's.
        works: whether a model can be made and trained of a configuration and overrides.
    """
    for index in reversed(range(1, len(config))):
        rest = [*config[:index], *config[index + 1 :]]
        if works(rest, override):
            return _conflict(config[index], rest, "does not go with")
    for key in override:
        if works(config, {other: value for other, value in override.items() if other != key}):
            return ConfigurationError(
                f"{key}: {override[key]} does not go with {' and '.join(config)}: {error.what}",
                where="override",
                fix=f"leave out {key}, or change what must fit it",
            )
    return error


def check_effective(
    config: Sequence[str], *, settings: Callable[[Sequence[str]], Mapping[str, str]], read: Collection[str]
) -> None:
    """Refuses a configuration of which the model reads nothing; one that says what is so anyway is let pass.

    Args:
        config: names, the last one added last.
        settings: what some configurations set, together.
        read: the settings that were read when the model was made and trained.

    Raises:
        ConfigurationError: with the name.
    """
    together = settings(config)
    for index in range(1, len(config)):
        rest = [*config[:index], *config[index + 1 :]]
        try:
            without = settings(rest)
        except ConfigurationError:  # it is the whole one
            continue
        changed = {key for key in together.keys() | without.keys() if together.get(key) != without.get(key)}
        if changed and changed.isdisjoint(read):
            raise _conflict(config[index], rest, "changes nothing in")


def _conflict(name: str, rest: Sequence[str], what: str) -> ConfigurationError:
    reason = _REASONS.get(name)
    return ConfigurationError(
        f"{name} {what} {' and '.join(rest)}" + (f": {reason}" if reason else ""),
        where="config",
        fix=f"leave out {name}" + (f", or take it with v2: config: [v2, {name}]" if name in _MADE_FOR_V2 else ""),
    )
