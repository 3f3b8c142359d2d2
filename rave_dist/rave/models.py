"""RAVE models built from a configuration text.

RAVE's feature matching reads gin's configuration whenever it runs, so that a second configuration would silently change the
first one's models. `build_model` therefore gives each model its feature matching and its warm-up with their values bound:
models of several configurations may live in one process.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rave_dist.errors import MisfitError
from rave_dist.rave.config import activate, first_line, gin_lock
from rave_dist.rave.imports import modules
from rave_dist.rave.overrides import full_key, statements

_REFERENCE = re.compile(r"@(?:(?P<scope>[\w/]+)/)?[\w.]+$")


@dataclass(frozen=True, kw_only=True)
class BetaWarmup:
    """How the weight of the latent regularisation rises: from ``initial`` to ``target`` over ``steps`` optimizer steps."""

    initial: float
    target: float
    steps: int
    logarithmic: bool


def build_model(config_text: str, *, channels: int) -> Any:
    """A new RAVE of a configuration, in training mode, on the CPU.

    Args:
        config_text: from `configure`, or the ``config.gin`` of a run.
        channels: 1 or 2.

    Returns:
        A ``rave.RAVE``. Its loss weights are its own: RAVE's are one dictionary that every model of a
        process writes into. Its ``beta_warmup`` is the configuration's `BetaWarmup`.

    Raises:
        ConfigurationError: not a configuration.
        MisfitError: its values do not make a model.
    """
    rave, _, _ = modules()
    with gin_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        activate(config_text)
        rave.model._default_loss_weights = dict(_stock_loss_weights())
        try:
            model = rave.RAVE(n_channels=channels)
        except (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, IndexError, ZeroDivisionError) as error:
            raise MisfitError(
                f"RAVE cannot build this model: {first_line(error)}", fix="check the overrides, which must match each other"
            ) from error
        model.feature_matching_fun = _bound(model.feature_matching_fun, config_text)
        model.beta_warmup = _beta_warmup()
    return model


def _bound(function: Callable[..., Any], config_text: str) -> Callable[..., Any]:
    """RAVE's feature matching with the values that the present configuration gives it."""
    gin = modules()[1]
    values = statements(config_text)
    reference = _REFERENCE.match(values.get(full_key("RAVE.feature_matching_fun", values), ""))
    plain = inspect.unwrap(function)
    if reference is None:
        return function
    with gin.config_scope(reference["scope"]):
        return functools.partial(plain, **gin.get_bindings(plain))


@functools.cache
def _stock_loss_weights() -> dict[str, float]:
    return dict(modules()[0].model._default_loss_weights)


def _beta_warmup() -> BetaWarmup:
    callback = modules()[0].BetaWarmupCallback()
    return BetaWarmup(
        initial=float(callback.initial_value),
        target=float(callback.target_value),
        steps=int(callback.warmup_len),
        logarithmic=bool(callback.log_warmup),
    )


def use_streaming(enabled: bool) -> None:
    """Whether models built from now on keep their convolutions' past between calls (for real-time exports)."""
    modules()[2].use_cached_conv(enabled)
