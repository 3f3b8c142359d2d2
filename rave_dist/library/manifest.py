"""The library manifest: one YAML file that says what to train, on what, for how long, and where results go."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rave_dist.errors import LibraryError, from_os_error
from rave_dist.library.messages import example, words
from rave_dist.options import (
    EXCLUSIVE_OPTIONS,
    STOCK_AUGMENTATIONS,
    Augmentation,
    BaseSpec,
    Budget,
    CheckpointPolicy,
    ComputeOption,
    Number,
    Recovery,
    StrictRecord,
    Until,
)
from rave_dist.records import TrainingSpec
from rave_dist.storage.schemes import has_scheme
from rave_dist.storage.store import Store
from rave_dist.suggest import suggest

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1)]
Strings = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
AUGMENTATIONS: dict[Augmentation, float] = {
    **STOCK_AUGMENTATIONS,
    "pitch": 0.5,
    "mute": 0.1,
    "compress": 0.8,
    "gain": 0.5,
    "polarity": 0.5,
}
"""The probability that an augmentation has unless the manifest gives another: RAVE's own where RAVE has it."""

LOW_DATA = tuple(AUGMENTATIONS)
"""What ``augment: low-data`` means: all of them."""


LARGEST_BATCH = 4096


def _augmentations(value: Any) -> Any:
    """A set's name, names, or names with probabilities, as probabilities by name."""
    value = LOW_DATA if value == "low-data" else _as_tuple(value)
    for name in value if isinstance(value, list | tuple | dict) else ():
        _check_known(name, tuple(AUGMENTATIONS), "augmentation", more=("low-data",))
    return {name: AUGMENTATIONS[name] for name in value} if isinstance(value, list | tuple) else value


def _options(value: Any) -> Any:
    """One option's name or several, without repeats, in one order."""
    value = _as_tuple(value)
    if not isinstance(value, list | tuple):
        return value
    known = get_args(ComputeOption)
    for name in value:
        _check_known(name, known, "compute option")
    for one, other in EXCLUSIVE_OPTIONS:
        if one in value and other in value:
            context = {"one": one, "other": other, "fix": f"leave out {one} or {other}"}
            raise PydanticCustomError("exclusive", "{one} and {other} do not go together", context)
    return tuple(name for name in known if name in value)


def _check_known(name: Any, known: tuple[str, ...], kind: str, *, more: tuple[str, ...] = ()) -> None:
    if name not in known:
        fix = suggest(str(name), (*known, *more))
        raise PydanticCustomError("unknown_name", "there is no {kind} '{name}'", {"kind": kind, "name": str(name), "fix": fix})


def _batch(value: Any) -> Any:
    """A number of windows, or the word auto."""
    if value is None or value == "auto" or (type(value) is int and 1 <= value <= LARGEST_BATCH):
        return value
    raise PydanticCustomError(
        "batch", "a batch is a number of windows from 1 to {largest}, or auto", {"largest": LARGEST_BATCH}
    )


Batch = Annotated[int | Literal["auto"], BeforeValidator(_batch)]
Options = Annotated[tuple[ComputeOption, ...], BeforeValidator(_options)]
Augmentations = Annotated[dict[Augmentation, Annotated[Number, Field(ge=0, le=1)]], BeforeValidator(_augmentations)]
SampleRate = Annotated[int, Field(ge=8000, le=192_000, strict=True)]
Channels = Annotated[int, Field(ge=1, le=2, strict=True)]


class Settings(StrictRecord):
    """What may stand both in ``defaults`` and in an instrument; the instrument's word wins.

    ``config`` names RAVE configurations (``v2_small``; ``[v2, causal]``), ``override`` sets their gin values,
    ``window`` is in samples; ``window`` and ``batch`` default to what suits the configuration, ``batch: auto`` to the same, in
    parts that fit the memory. ``augment`` is ``low-data``, a list of augmentations or their probabilities by name; ``compute``
    names ways to compute faster.
    """

    config: Strings | None = None
    sample_rate: SampleRate | None = None
    channels: Channels | None = None
    budget: Budget | None = None
    override: dict[str, Any] | None = None
    window: Annotated[int, Field(ge=1, strict=True)] | None = None
    batch: Batch | None = None
    checkpoint: CheckpointPolicy | None = None
    recover: Recovery | None = None
    credit: dict[str, str] | None = None
    base: BaseSpec | None = None
    augment: Augmentations | None = None
    compute: Options | None = None


class Instrument(Settings):
    """One instrument: where its recordings are, and what differs from the defaults."""

    sources: Strings
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = None


class LibraryManifest(StrictRecord):
    """The manifest as written."""

    name: Name
    store: Text
    defaults: Settings = Settings()
    instruments: dict[Name, Instrument] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ_in_more_than_case(self) -> LibraryManifest:
        seen: dict[str, str] = {}
        for name in self.instruments:
            if name.lower() in seen:
                raise ValueError(f"{seen[name.lower()]} and {name} would share a folder on some disks: rename one")
            seen[name.lower()] = name
        return self

    @model_validator(mode="after")
    def _one_base_for_all(self) -> LibraryManifest:
        for name, instrument in self.instruments.items():
            if instrument.base is not None and instrument.base.train:
                context = {"name": name, "fix": "write it in defaults: {base: {train: true}}"}
                raise PydanticCustomError(
                    "base_place", "{name} asks to train a base, which is one for all instruments", context
                )
        if self.defaults.base is not None and self.defaults.base.train and base_name(self.name) in self.instruments:
            raise ValueError(f"{base_name(self.name)} is the name of the library's base: rename that instrument")
        return self


def base_name(library: str) -> str:
    """The name of the model that a library trains on all its instruments."""
    return f"{library[:58]}-base"


HOUSE_DEFAULTS = Settings(
    config=("v2_small",),
    sample_rate=44100,
    channels=1,
    budget=Budget(hours=4),
    override={},
    checkpoint=CheckpointPolicy(),
    credit={},
    augment=STOCK_AUGMENTATIONS,
    compute=(),
)


class Library:
    """A validated manifest with its defaults applied and its paths resolved against the manifest's folder."""

    def __init__(self, manifest: LibraryManifest, *, path: Path) -> None:
        self.manifest = manifest
        self.path = path
        self.name = manifest.name
        address = manifest.store
        if not has_scheme(address):
            address = _beside(path, address)
        self.store = Store(address)

    @property
    def instruments(self) -> tuple[str, ...]:
        """The instruments' names, in the manifest's order."""
        return tuple(self.manifest.instruments)

    def sources(self, instrument: str) -> tuple[str, ...]:
        """An instrument's source patterns: absolute paths or globs, or s3:// addresses."""
        return tuple(s if has_scheme(s) else _beside(self.path, s) for s in self.manifest.instruments[instrument].sources)

    def settings(self, instrument: str) -> Settings:
        """An instrument's settings: its own word, else the library's defaults, else the house's; ``override`` and
        ``credit`` are merged key by key."""
        return _merged(HOUSE_DEFAULTS, self.manifest.defaults, self.manifest.instruments[instrument])

    def seed(self, instrument: str) -> int:
        """The instrument's seed: as written, else from its name, so that the same manifest gives the same weights."""
        seed = self.manifest.instruments[instrument].seed
        return _seed_of(instrument) if seed is None else seed

    def base(self, instrument: str) -> BaseSpec | None:
        """What an instrument starts from, the path of a stock run absolute; None for new weights."""
        base = self.settings(instrument).base
        if base is None or base.stock is None:
            return base
        return base.model_copy(update={"stock": _beside(self.path, base.stock)})

    def training_spec(self, instrument: str, *, dataset: str, base: str | None = None) -> TrainingSpec:
        """The run that this library asks for on a dataset.

        Args:
            dataset: the dataset's id.
            base: the id under which the store keeps what `base` names.
        """
        settings = self.settings(instrument)
        return TrainingSpec(
            library=self.name,
            instrument=instrument,
            dataset=dataset,
            seed=self.seed(instrument),
            base=base,
            **{key: getattr(settings, key) for key in Settings.model_fields if key != "base"},
        )

    def base_spec(self, *, dataset: str) -> TrainingSpec | None:
        """The run of the library's own base, by its defaults alone; None where ``defaults`` does not ask for one."""
        settings = _merged(HOUSE_DEFAULTS, self.manifest.defaults)
        if settings.base is None or not settings.base.train:
            return None
        name = base_name(self.name)
        values = {key: getattr(settings, key) for key in Settings.model_fields if key != "base"}
        values["budget"] = settings.base.budget or settings.budget
        return TrainingSpec(library=self.name, instrument=name, dataset=dataset, seed=_seed_of(name), **values)

    def select(self, only: list[str] | None) -> tuple[str, ...]:
        """The named instruments, or all.

        Raises:
            LibraryError: a name that the manifest does not have.
        """
        for name in only or ():
            if name not in self.instruments:
                raise LibraryError(
                    f"no instrument is called {name!r}", where=str(self.path), fix=suggest(name, self.instruments)
                )
        return tuple(only) if only else self.instruments


def load_library(path: Path | str) -> Library:
    """Reads and validates a manifest.

    Raises:
        LibraryError: unreadable, not YAML, an unknown key, a value of the wrong kind: with the place and the fix.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LibraryError("there is no such file", where=str(path), fix="check the path of the library manifest") from error
    except UnicodeDecodeError as error:
        raise LibraryError("not a text file in UTF-8", where=str(path), fix="give a YAML library manifest") from error
    except IsADirectoryError as error:
        raise LibraryError("this is a folder", where=str(path), fix="give the YAML file in it") from error
    except OSError as error:
        raise from_os_error(error, where=str(path)) from error
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise LibraryError(f"not valid YAML: {error}".replace("\n", " "), where=str(path), fix="mend that line") from error
    if not isinstance(value, dict):
        raise LibraryError(
            "a library is a mapping of name, store and instruments", where=str(path), fix="see README, The manifest"
        )
    try:
        manifest = LibraryManifest.model_validate(value)
    except ValidationError as error:
        raise _explain(error, path) from error
    return Library(manifest, path=Path(os.path.abspath(path)))


def _merged(*layers: Settings) -> Settings:
    """Settings of which a later one's word wins; ``override`` and ``credit`` are merged key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key in Settings.model_fields:
            value = getattr(layer, key)
            if value is not None:
                merged[key] = {**merged.get(key, {}), **value} if key in ("override", "credit") else value
    return Settings.model_construct(**merged)


def _seed_of(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def _beside(manifest: Path, path: str) -> str:
    """A path as written in the manifest; without ``..``, so that it is the same wherever the command was started."""
    return os.path.abspath(manifest.parent / Path(path).expanduser())


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is written twice; YAML itself would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is written twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


_KNOWN_KEYS: dict[str, tuple[str, ...]] = {
    "": tuple(LibraryManifest.model_fields),
    "defaults": tuple(Settings.model_fields),
    "instrument": tuple(Instrument.model_fields),
    "budget": tuple(Budget.model_fields),
    "until": tuple(Until.model_fields),
    "checkpoint": tuple(CheckpointPolicy.model_fields),
    "recover": tuple(Recovery.model_fields),
    "base": tuple(BaseSpec.model_fields),
}


def _known_at(location: tuple[int | str, ...]) -> tuple[str, ...]:
    parents = [str(part) for part in location[:-1]]
    if not parents:
        return _KNOWN_KEYS[""]
    if parents[-1] in ("budget", "until", "checkpoint", "recover", "base"):
        return _KNOWN_KEYS[parents[-1]]
    return _KNOWN_KEYS["instrument"] if parents[0] == "instruments" else _KNOWN_KEYS["defaults"]


def _explain(error: ValidationError, path: Path) -> LibraryError:
    """All problems of a manifest in one message; the first one's fix is the fix."""
    lines: list[str] = []
    fixes: list[str] = []
    for problem in error.errors():
        location = tuple(problem["loc"])
        place = ".".join(str(part) for part in location) or "the manifest"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {place!r}")
            fixes.append(suggest(str(location[-1]), _known_at(location)))
        elif problem["type"] == "missing":
            lines.append(f"{place!r} is missing")
            fixes.append(f"add {location[-1]!r}")
        else:
            what = words(dict(problem))
            lines.append(
                f"{place!r} is {problem['input']!r}: {what}" if not isinstance(problem["input"], dict) else f"{place!r}: {what}"
            )
            shown = example(location)
            correct = f"correct {place!r}" + (f", for example {shown}" if shown else "")
            fixes.append(problem.get("ctx", {}).get("fix", correct))
    return LibraryError("; ".join(lines), where=str(path), fix="; ".join(dict.fromkeys(fixes)))
