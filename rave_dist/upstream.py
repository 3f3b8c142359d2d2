"""The one door to acids-rave: makes it importable, reads its configurations, builds its models.

Nothing else in this package imports ``rave``, ``gin``, ``cached_conv``, ``torchaudio`` or ``pytorch_lightning``.

What has to be mended before ``import rave`` works (none of it changes a result):

- torchaudio's wheels load a native library that is linked to CUDA and fails beside a CPU-only torch. RAVE uses none of
  it, so a failing load puts torchaudio into its own "extension not available" state.
- RAVE asks ``scipy.signal`` for ``kaiser`` and ``firwin(nyq=…)``, which newer scipy keeps elsewhere or spells ``fs``.

gin keeps one configuration per process, and RAVE's feature matching reads it whenever it runs, so that a second
configuration would silently change the first one's models. `build_model` therefore gives each model its feature matching
and its warm-up with their values bound: models of several configurations may live side by side.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rave_dist.errors import ConfigurationError, MisfitError
from rave_dist.gin_text import Parameters, full_key, literal, nearest, override_line, statements
from rave_dist.training.variants import VARIANTS

_EXTENSION = "torchaudio._extension"
_INCLUDE = re.compile(r"""^include ['"](.+?)['"][ \t]*$""", re.MULTILINE)
# v2_nopqmf_small sets parameters that its augmentation does not have, so that RAVE itself cannot read it. Augmentations
# are not gin's business here.
_UNREADABLE = re.compile(r"^augmentations/transforms\.Compress:\n(?:[ \t]+\S.*\n)+", re.MULTILINE)
_NO_WRAP = 10_000
_PHASE_1, _WARMUP = "RAVE.phase_1_duration", "BetaWarmupCallback.warmup_len"
_REFERENCE = re.compile(r"@(?:(?P<scope>[\w/]+)/)?[\w.]+$")
_one_at_a_time = threading.RLock()  # gin's configuration is the process's
# What gin and the modules that it imports for a configuration raise over one that they cannot use.
_GIN_ERRORS = (ValueError, TypeError, AttributeError, NameError, ImportError, SyntaxError, OSError)


# ---------------------------------------------------------------- making it importable


class _ExtensionLoader(importlib.abc.Loader):
    """Runs torchaudio's own extension module; where its library cannot be loaded, says so as torchaudio itself does."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._real.exec_module(module)
        except (OSError, ImportError, RuntimeError) as error:
            reason = str(error)

            def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(function)
                def fail(*args: object, **kwargs: object) -> None:
                    raise RuntimeError(f"{function.__name__} needs torchaudio's native library, which did not load: {reason}")

                return fail

            module.__dict__.update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=fail_if_no_align
            )


class _ExtensionFinder(importlib.abc.MetaPathFinder):
    """Puts `_ExtensionLoader` around one module's loader, and touches no other."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _EXTENSION:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ExtensionLoader(spec.loader)
        return spec


def _scalar(value: Any) -> Any:
    """RAVE's filter search passes arrays of one element where scipy now wants a number."""
    return float(value.item()) if getattr(value, "size", None) == 1 else value


def _mend_scipy() -> None:
    signal: Any = importlib.import_module("scipy.signal")
    if hasattr(signal, "kaiser") and "nyq" in inspect.signature(signal.firwin).parameters:
        return  # an older scipy, as acids-rave pins it
    windows = importlib.import_module("scipy.signal.windows")
    if not hasattr(signal, "kaiser"):
        signal.kaiser = windows.kaiser
    if not getattr(signal.firwin, "accepts_nyq", False):
        signal.firwin = _firwin_with_nyq(signal.firwin)
        real_kaiserord = signal.kaiserord
        signal.kaiserord = lambda ripple, width: real_kaiserord(_scalar(ripple), _scalar(width))


def _firwin_with_nyq(firwin: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(firwin)
    def wrapped(numtaps: Any, cutoff: Any, *args: Any, nyq: float | None = None, **kwargs: Any) -> Any:
        if nyq is not None:
            kwargs["fs"] = 2 * nyq
        return firwin(numtaps, _scalar(cutoff), *args, **kwargs)

    wrapped.accepts_nyq = True  # type: ignore[attr-defined]
    return wrapped


def install() -> None:
    """Prepares this process for ``import rave``; does nothing the second time. Imports nothing heavy."""
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ExtensionFinder())


@functools.cache
def _modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    """``rave``, ``gin`` and ``cached_conv``, imported once."""
    install()
    _mend_scipy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rave = importlib.import_module("rave")
        except ImportError as error:
            raise ConfigurationError(
                f"acids-rave cannot be imported: {error}", fix="run 'make setup', which installs the versions that go together"
            ) from error
        for name in ("rave.core", "rave.dataset", "rave.transforms", "rave.descript_discriminator", "rave.quantization"):
            importlib.import_module(name)
    return rave, importlib.import_module("gin"), importlib.import_module("cached_conv")


def rave_module(name: str = "") -> ModuleType:
    """A module of acids-rave: ``rave_module("core")`` is ``rave.core``."""
    rave = _modules()[0]
    return importlib.import_module(f"rave.{name}") if name else rave


# ---------------------------------------------------------------- configurations


def _config_folder() -> Path:
    spec = importlib.util.find_spec("rave")
    if spec is None or spec.origin is None:
        raise ConfigurationError("acids-rave is not installed", fix="run 'make setup'")
    return Path(spec.origin).parent / "configs"


@functools.cache
def configurations() -> tuple[str, ...]:
    """The names that ``config`` may have: RAVE's own, without ``.gin``, and this package's variants. Does not import RAVE."""
    return tuple(sorted({path.stem for path in _config_folder().glob("*.gin")} | set(VARIANTS)))


def _parameters(name: str) -> Parameters:
    """What a class or function that gin configures can be given; empty where it takes anything, or is not known."""
    gin = _modules()[1]
    try:
        configurable = gin.get_configurable(name)
    except ValueError:
        return {}
    # gin makes subclasses and wrappers that take anything: the signature is that of what they wrap.
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
    """Stock names and overrides behind names that may be variants; what the user wrote wins over a variant's values."""
    names: list[str] = []
    values: dict[str, Any] = {}
    for name in config:
        name = name.removesuffix(".gin")
        if name not in configurations():
            raise ConfigurationError(f"RAVE has no configuration {name!r}", fix=nearest(name, configurations()))
        variant = VARIANTS.get(name)
        names.extend(variant.config if variant else (name,))
        values.update(variant.override if variant else {})
    if not names:
        raise ConfigurationError("no configuration is named", fix="config: v2_small")
    return names, {**values, **override}


def configure(config: Sequence[str], override: Mapping[str, Any], *, sample_rate: int, channels: int) -> str:
    """Reads RAVE configurations, applies overrides, and returns the whole as one self-contained gin text.

    Args:
        config: names from `configurations`, applied in order: ``("v2", "causal")``.
        override: gin macros (``CAPACITY: 48``) or bindings (``blocks.NoiseGenerator.noise_bands: 3``). Values are numbers,
            truth values, strings, lists, or gin references as strings (``"@blocks.Snake"``, ``"%CAPACITY"``).
        sample_rate: in Hz; becomes SAMPLING_RATE.
        channels: 1 or 2; becomes RAVE.n_channels.

    Raises:
        ConfigurationError: an unknown configuration or override (with the nearest known name), or a value of another kind
            than the one it replaces.
    """
    names, values = _expand(config, override)
    with _one_at_a_time, _empty_gin() as gin:
        try:
            for name in names:
                _parse_file(_config_folder() / f"{name}.gin", gin)
        except _GIN_ERRORS as error:
            raise ConfigurationError(
                f"RAVE's configuration cannot be read: {_first_line(error)}",
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
            except _GIN_ERRORS as error:
                key = line.partition(" = ")[0]
                raise ConfigurationError(
                    f"not understood: {_first_line(error)}", where=f"override {key}", fix=nearest(key, sorted(known))
                ) from error
        text = str(gin.config_str(max_line_length=120))
    with _one_at_a_time:
        _activate(text)
    return text


def with_schedule(config_text: str, *, phase_1_steps: int, warmup_steps: int) -> str:
    """A configuration text that says when this run's phase 1 and warm-up ended; stock RAVE goes by it."""
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
    with _one_at_a_time:
        return frozenset(statements(str(_modules()[1].operative_config_str(max_line_length=_NO_WRAP))))


_active: list[str] = []  # the configuration text that gin holds


def _activate(config_text: str) -> None:
    if _active == [config_text]:
        return
    gin = _modules()[1]
    _active.clear()
    gin.clear_config()
    try:
        gin.parse_config(config_text)
    except _GIN_ERRORS as error:
        gin.clear_config()
        raise ConfigurationError(f"not a RAVE configuration: {_first_line(error)}", where="config.gin") from error
    _active.append(config_text)


@contextmanager
def _empty_gin() -> Iterator[ModuleType]:
    """gin without any configuration; afterwards the present one is in force again."""
    gin = _modules()[1]
    gin.clear_config()
    try:
        yield gin
    finally:
        gin.clear_config()
        if _active:
            gin.parse_config(_active[0])


def _parse_file(path: Path, gin: ModuleType) -> None:
    """Reads a stock configuration, what it includes first.

    gin would look for ``configs/v1.gin`` in the working directory before it looks into RAVE: here it cannot.
    """
    text = path.read_text(encoding="utf-8")
    for included in _INCLUDE.findall(text):
        _parse_file(path.parent / Path(included).name, gin)
    gin.parse_config(_UNREADABLE.sub("", _INCLUDE.sub("", text)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


# ---------------------------------------------------------------- models


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
        A ``rave.RAVE`` (a LightningModule). Its loss weights are its own: RAVE's are one dictionary that every model of a
        process writes into. Its ``beta_warmup`` is the configuration's `BetaWarmup`.

    Raises:
        ConfigurationError: not a configuration.
        MisfitError: its values do not make a model.
    """
    rave, _, _ = _modules()
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _activate(config_text)
        rave.model._default_loss_weights = dict(_stock_loss_weights())
        try:
            model = rave.RAVE(n_channels=channels)
        except (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, IndexError, ZeroDivisionError) as error:
            raise MisfitError(
                f"RAVE cannot build this model: {_first_line(error)}", fix="check the overrides: they must fit together"
            ) from error
        model.feature_matching_fun = _bound(model.feature_matching_fun, config_text)
        model.beta_warmup = _beta_warmup()
    return model


def _bound(function: Callable[..., Any], config_text: str) -> Callable[..., Any]:
    """RAVE's feature matching with the values that the present configuration gives it."""
    gin = _modules()[1]
    values = statements(config_text)
    reference = _REFERENCE.match(values.get(full_key("RAVE.feature_matching_fun", values), ""))
    plain = inspect.unwrap(function)
    if reference is None:
        return function
    with gin.config_scope(reference["scope"]):
        return functools.partial(plain, **gin.get_bindings(plain))


@functools.cache
def _stock_loss_weights() -> dict[str, float]:
    return dict(_modules()[0].model._default_loss_weights)


def _beta_warmup() -> BetaWarmup:
    callback = _modules()[0].BetaWarmupCallback()
    return BetaWarmup(
        initial=float(callback.initial_value),
        target=float(callback.target_value),
        steps=int(callback.warmup_len),
        logarithmic=bool(callback.log_warmup),
    )


def streaming(enabled: bool) -> None:
    """Whether models built from now on keep their convolutions' past between calls (for real-time exports)."""
    _modules()[2].use_cached_conv(enabled)
