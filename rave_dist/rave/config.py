"""RAVE configurations: names, overrides and the one self-contained gin text that a run keeps.

gin holds one configuration per process; `activate` makes a text the present one.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from rave_dist.errors import ConfigurationError
from rave_dist.rave.imports import folder, modules
from rave_dist.rave.overrides import Parameters, full_key, literal, override_line, statements
from rave_dist.rave.presets import PRESETS
from rave_dist.suggest import suggest

_INCLUDE = re.compile(r"""^include ['"](.+?)['"][ \t]*$""", re.MULTILINE)
# v2_nopqmf_small sets parameters that its augmentation does not have, so that RAVE itself cannot read it. Augmentations
# are not gin's business here.
_UNREADABLE = re.compile(r"^augmentations/transforms\.Compress:\n(?:[ \t]+\S.*\n)+", re.MULTILINE)
_NO_WRAP = 10_000
_PHASE_1 = "RAVE.phase_1_duration"
_WARMUP = "BetaWarmupCallback.warmup_len"
gin_lock = threading.RLock()  # gin's configuration is the process's
# What gin and the modules that it imports for a configuration raise over one that they cannot use.
GIN_ERRORS = (ValueError, TypeError, AttributeError, NameError, ImportError, SyntaxError, OSError)


def _config_folder() -> Path:
    return folder() / "configs"


@functools.cache
def configurations() -> tuple[str, ...]:
    """The names that ``config`` may have: RAVE's own, without ``.gin``, and this package's presets. Does not import RAVE."""
    return tuple(sorted({path.stem for path in _config_folder().glob("*.gin")} | set(PRESETS)))


def _parameters(name: str) -> Parameters:
    """Parameters of a class or function that gin configures; empty if it accepts anything or is not known."""
    gin = modules()[1]
    try:
        configurable = gin.get_configurable(name)
    except ValueError:
        return {}
    # gin creates subclasses and wrappers with a signature of *args, **kwargs: use the wrapped one.
    makers = (
        [vars(kind)["__init__"] for kind in configurable.__mro__ if "__init__" in vars(kind)]
        if inspect.isclass(configurable)
        else [configurable]
    )
    for maker in makers:
        parameters = inspect.signature(inspect.unwrap(maker)).parameters
        if not any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters.values()):
            return {name: parameter for name, parameter in parameters.items() if name != "self"}
    return {}


def _expand(config: Sequence[str], override: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Stock names and overrides of names that may be presets; the user's overrides replace a preset's."""
    names: list[str] = []
    values: dict[str, Any] = {}
    for name in config:
        name = name.removesuffix(".gin")
        if name not in configurations():
            raise ConfigurationError(f"RAVE has no configuration {name!r}", fix=suggest(name, configurations()))
        preset = PRESETS.get(name)
        names.extend(preset.config if preset else (name,))
        values.update(preset.override if preset else {})
    if not names:
        raise ConfigurationError("no configuration is named", fix="config: v2_small")
    return names, {**values, **override}


def configure(config: Sequence[str], override: Mapping[str, Any], *, sample_rate: int, channels: int) -> str:
    """Reads RAVE configurations, applies overrides, and returns the whole as one self-contained gin text.

    Args:
        config: names from `configurations`, applied in order: ``("v2", "causal")``.
        override: gin macros (``CAPACITY: 48``) or bindings (``blocks.NoiseGenerator.noise_bands: 3``). Values are numbers,
            booleans, strings, lists, or gin references as strings (``"@blocks.Snake"``, ``"%CAPACITY"``).
        sample_rate: in Hz; becomes SAMPLING_RATE.
        channels: 1 or 2; becomes RAVE.n_channels.

    Raises:
        ConfigurationError: an unknown configuration or override (with the nearest known name), or a value of another kind
            than the one it replaces.
    """
    names, values = _expand(config, override)
    with gin_lock, _empty_gin() as gin:
        try:
            for name in names:
                _parse_file(_config_folder() / f"{name}.gin", gin)
        except GIN_ERRORS as error:
            raise ConfigurationError(
                f"RAVE's configuration cannot be read: {first_line(error)}",
                where=", ".join(config),
                fix=f"put a whole configuration (such as v2) before {names[-1]!r}, or leave it out",
            ) from error
        text = str(gin.config_str(max_line_length=_NO_WRAP))
        imports, known = text.partition("\n\n")[0], statements(text)
        if "SAMPLING_RATE" not in known:
            raise ConfigurationError(
                f"{names[0]!r} only modifies another configuration", where="config", fix=f"put one before it: [v2, {names[0]}]"
            )
        lines = [override_line(key, value, known, parameters=_parameters) for key, value in values.items()]
        model = full_key("RAVE.latent_size", known).rpartition(".")[0]
        lines += [f"SAMPLING_RATE = {sample_rate}", f"{model}.n_channels = {channels}"]
        for line in lines:
            try:
                gin.parse_config(f"{imports}\n{line}")
            except GIN_ERRORS as error:
                key = line.partition(" = ")[0]
                raise ConfigurationError(
                    f"not understood: {first_line(error)}", where=f"override {key}", fix=suggest(key, sorted(known))
                ) from error
        text = str(gin.config_str(max_line_length=120))
    with gin_lock:
        activate(text)
    return text


def with_schedule(config_text: str, *, phase_1_steps: int, warmup_steps: int) -> str:
    """A configuration text that states where this run's phase 1 and warm-up end, as stock RAVE reads it."""
    known = statements(config_text)
    lines = {_PHASE_1: phase_1_steps, _WARMUP: warmup_steps}
    return "\n".join([config_text.rstrip(), *(f"{full_key(key, known)} = {value}" for key, value in lines.items()), ""])


def schedule_of(config_text: str) -> tuple[int | None, int | None]:
    """Steps of phase 1 and of the warm-up that a configuration text states; None where it leaves one to RAVE."""
    known = statements(config_text)
    phase_1, warmup = (literal(known.get(full_key(key, known), ""), known) for key in (_PHASE_1, _WARMUP))
    return (phase_1 if isinstance(phase_1, int) else None), (warmup if isinstance(warmup, int) else None)


def sample_rate_of(config_text: str) -> int | None:
    """The sample rate that a configuration text states."""
    rate = literal("%SAMPLING_RATE", statements(config_text))
    return rate if isinstance(rate, int) else None


def settings_read() -> frozenset[str]:
    """The settings of the present configuration that models made or trained since it is in force have read."""
    with gin_lock:
        return frozenset(statements(str(modules()[1].operative_config_str(max_line_length=_NO_WRAP))))


_active: list[str] = []  # the configuration text that gin holds


def activate(config_text: str) -> None:
    """Makes a configuration text the one that gin holds.

    Raises:
        ConfigurationError: not a RAVE configuration.
    """
    if _active == [config_text]:
        return
    gin = modules()[1]
    _active.clear()
    gin.clear_config()
    try:
        gin.parse_config(config_text)
    except GIN_ERRORS as error:
        gin.clear_config()
        raise ConfigurationError(f"not a RAVE configuration: {first_line(error)}", where="config.gin") from error
    _active.append(config_text)


@contextmanager
def _empty_gin() -> Iterator[ModuleType]:
    """Gin without any configuration; afterwards the present one is in force again."""
    gin = modules()[1]
    gin.clear_config()
    try:
        yield gin
    finally:
        gin.clear_config()
        if _active:
            gin.parse_config(_active[0])


def _parse_file(path: Path, gin: ModuleType) -> None:
    """Reads a stock configuration, after the files that it includes.

    gin would look for ``configs/v1.gin`` in the working directory before it looks into RAVE: here it cannot.
    """
    text = path.read_text(encoding="utf-8")
    for included in _INCLUDE.findall(text):
        _parse_file(path.parent / Path(included).name, gin)
    gin.parse_config(_UNREADABLE.sub("", _INCLUDE.sub("", text)))


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]
