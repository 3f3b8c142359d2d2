"""The keys of a library manifest, their types and defaults, each with a description and examples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from rave_dist import extensions
from rave_dist.library.names import Name
from rave_dist.library.paths import PathText
from rave_dist.options import (
    EXCLUSIVE_OPTIONS,
    STOCK_AUGMENTATIONS,
    Augmentation,
    BaseSpec,
    Budget,
    CheckpointPolicy,
    ComputeOption,
    Number,
    Placement,
    Recovery,
    StrictRecord,
    Strings,
    Text,
    as_tuple,
    key,
)
from rave_dist.suggest import suggest

AUGMENTATIONS: dict[str, float] = {
    **STOCK_AUGMENTATIONS,
    "pitch": 0.5,
    "mute": 0.1,
    "compress": 0.8,
    "gain": 0.5,
    "polarity": 0.5,
}
"""Default probabilities of the augmentations: RAVE's, for those that RAVE has."""

LOW_DATA = tuple(AUGMENTATIONS)
"""``augment: low-data``: all of them."""

LARGEST_BATCH = 4096
MOST_WORKERS = 64

ADDRESS = r"^https?://[^\s/?#]+\S*$"
"""The web addresses that can be notified of the end of a command."""


def _augmentations(value: Any) -> Any:
    """Converts a set's name, names, or names with probabilities to probabilities by name."""
    value = LOW_DATA if value == "low-data" else as_tuple(value)
    for name in value if isinstance(value, list | tuple | dict) else ():
        if name not in AUGMENTATIONS:
            _check_known(name, (*AUGMENTATIONS, *extensions.AUGMENTATIONS), "augmentation", more=("low-data",))
    if not isinstance(value, list | tuple):
        return value
    return {n: AUGMENTATIONS[n] if n in AUGMENTATIONS else extensions.AUGMENTATIONS[n].probability for n in value}


def _losses(value: Any) -> Any:
    """Names, or names with weights, as weights by name."""
    value = as_tuple(value)
    for name in value if isinstance(value, list | tuple | dict) else ():
        _check_known(name, tuple(extensions.LOSSES), "loss")
    return {name: extensions.LOSSES[name].weight for name in value} if isinstance(value, list | tuple) else value


def _registered(registry: extensions.Registry[Any]) -> Callable[[Any], Any]:
    """Checks names, one or several, against a registry."""

    def check(value: Any) -> Any:
        value = as_tuple(value)
        for name in value if isinstance(value, list | tuple) else ():
            _check_known(name, tuple(registry), registry.kind)
        return value

    return check


def _options(value: Any) -> Any:
    """Converts one name or several to sorted names without repeats."""
    value = as_tuple(value)
    if not isinstance(value, list | tuple):
        return value
    known = get_args(ComputeOption)
    for name in value:
        _check_known(name, known, "compute option")
    for one, other in EXCLUSIVE_OPTIONS:
        if one in value and other in value:
            context = {"one": one, "other": other, "fix": f"leave out {one} or {other}"}
            raise PydanticCustomError("exclusive", "{one} and {other} cannot be combined", context)
    return tuple(name for name in known if name in value)


def _check_known(name: Any, known: tuple[str, ...], kind: str, *, more: tuple[str, ...] = ()) -> None:
    if name not in known:
        fix = suggest(str(name), (*known, *more))
        raise PydanticCustomError("unknown_name", "there is no {kind} '{name}'", {"kind": kind, "name": str(name), "fix": fix})


def _is_address(text: str) -> bool:
    try:
        return re.fullmatch(ADDRESS, text) is not None and urlsplit(text).port != 0
    except ValueError:  # brackets that do not match, or an invalid port
        return False


def _on_end(value: Any) -> Any:
    """An address, or a program with its arguments; never a line for a shell."""
    if value is None or (isinstance(value, str) and _is_address(value)):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) and part for part in value):
        return tuple(value)
    parts = value.split() if isinstance(value, str) else [str(part) for part in value] if isinstance(value, list) else []
    context = {"fix": f"write on_end: {json.dumps(parts or ['./notify.sh'], ensure_ascii=False)}"}
    raise PydanticCustomError("on_end", "must be a list of a program and its arguments, or an http(s) address", context)


def _batch(value: Any) -> Any:
    """A number of windows, or ``auto``."""
    if value is None or value == "auto" or (type(value) is int and 1 <= value <= LARGEST_BATCH):
        return value
    raise PydanticCustomError(
        "batch", "a batch is a number of windows from 1 to {largest}, or auto", {"largest": LARGEST_BATCH}
    )


_Probability = Annotated[Number, Field(ge=0, le=1)]
# The types after ``json_schema_input_type`` are those of the manifest, the others those of the record.
Paths = Annotated[
    tuple[PathText, ...],
    BeforeValidator(as_tuple, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)]),
    Field(min_length=1),
]
Batch = Annotated[
    int | Literal["auto"],
    BeforeValidator(_batch, json_schema_input_type=Annotated[int, Field(ge=1, le=LARGEST_BATCH)] | Literal["auto"]),
]
Options = Annotated[
    tuple[ComputeOption, ...], BeforeValidator(_options, json_schema_input_type=ComputeOption | list[ComputeOption])
]
Augmentations = Annotated[
    dict[str, _Probability],
    BeforeValidator(
        _augmentations,
        json_schema_input_type=Literal["low-data"] | Augmentation | list[Augmentation] | dict[Augmentation, _Probability],
    ),
]
Losses = Annotated[
    dict[str, Annotated[Number, Field(ge=0)]],
    BeforeValidator(_losses, json_schema_input_type=Text | list[Text] | dict[str, Annotated[Number, Field(ge=0)]]),
]
Exports = Annotated[
    tuple[Text, ...],
    BeforeValidator(_registered(extensions.EXPORT_FORMATS), json_schema_input_type=Text | list[Text]),
]
MetricNames = Annotated[
    tuple[Text, ...], BeforeValidator(_registered(extensions.METRICS), json_schema_input_type=Text | list[Text])
]
OnEnd = Annotated[
    str | tuple[Text, ...],
    BeforeValidator(
        _on_end,
        json_schema_input_type=Annotated[str, Field(pattern=ADDRESS)] | Annotated[list[Text], Field(min_length=1)],
    ),
]
SampleRate = Annotated[int, Field(ge=8000, le=192_000, strict=True)]
Channels = Annotated[int, Field(ge=1, le=2, strict=True)]


class Settings(StrictRecord):
    """Settings of ``defaults`` and of instruments; values set on an instrument override the defaults."""

    config: Strings | None = key(
        "RAVE configuration, or several in order: `v1`, `v2`, `v2_small`, `[v2, causal]`, …; `v2_tiny` is a small preset for"
        " quick experiments; see docs/configurations.md",
        "v2_small",
        ["v2", "causal"],
    )
    override: dict[str, Any] | None = key(
        "values of the configuration, each of the same type as RAVE's own value; merged key by key with the defaults",
        {"CAPACITY": 48},
        without="none",
    )
    sample_rate: SampleRate | None = key(
        "sample rate of the model in Hz, from 8000 to 192000; recordings are resampled to it", 44100
    )
    channels: Channels | None = key("audio channels of the model: 1 or 2; recordings are converted", 1)
    budget: Budget | None = key(
        "duration of training; both phases and the warm-up scale with it", {"hours": 4}, {"steps": 200000}
    )
    window: Annotated[int, Field(ge=1, strict=True)] | None = key(
        "samples per training window", 131072, without="suits the configuration"
    )
    batch: Batch | None = key(
        "windows per step; `auto` uses the configuration's own batch, and gradient accumulation where it does not fit the"
        " memory, see docs/training.md",
        8,
        "auto",
        without="suits the configuration",
    )
    checkpoint: CheckpointPolicy | None = key(
        "interval of checkpoints; a stopped run always saves one",
        {"minutes": 10},
        {"steps": 1000},
        without="every 10 minutes",
    )
    recover: Recovery | None = key(
        "after a NaN or infinite loss, resume from the last checkpoint with the learning rate multiplied by a factor",
        {"rate": 0.5},
        without="the run stops with an error",
    )
    augment: Augmentations | None = key(
        "augmentations: `low-data` for all of them, some of `mangle`, `pitch`, `mute`, `compress`, `gain`, `polarity`, or their"
        " probabilities, see docs/training.md",
        "low-data",
        ["mangle", "gain"],
        {"pitch": 0.5},
    )
    losses: Losses | None = key(
        "further losses of extensions, or their weights, see CONTRIBUTING.md", ["level"], {"level": 0.1}, without="none"
    )
    exports: Exports | None = key(
        "further files of the published model, in formats of extensions, see CONTRIBUTING.md", ["arrays"], without="none"
    )
    metrics: MetricNames | None = key(
        "further metrics of extensions in the model's card and the page, see CONTRIBUTING.md", ["crest"], without="none"
    )
    compute: Options | None = key(
        "options of faster arithmetic: `tf32`, `bf16`, `fp16`, `bf16-discriminator`, `compile`, `cuda-graphs`, `fused-adam`,"
        " see docs/training.md",
        ["bf16", "fused-adam"],
        without="none",
    )
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS, strict=True)] | None = key(
        "number of processes that divide the batch of a training step, each on a GPU of its own where there are GPUs; the"
        " result is that of one process up to rounding, see docs/training.md",
        2,
        without="1",
    )
    base: BaseSpec | None = key(
        "initial weights: a published model (`NAME`, `NAME@VERSION`), a stock RAVE run, or a joint base that is"
        " trained on all instruments first, see docs/bases.md",
        "kompang",
        {"stock": "runs/drums"},
        without="new weights",
    )
    placement: Placement | None = key(
        "on a cluster: the type of GPU, labels of the host, and a priority; without priorities the longest and largest runs"
        " start first",
        {"accelerator": "H100"},
        {"priority": 1},
        without="any host",
    )
    credit: dict[str, str] | None = key(
        "attribution, such as performer, place, licence and source; copied to the model's card and the page, merged key by key"
        " with the defaults",
        {"performer": "Ada", "licence": "CC0-1.0"},
        without="none",
    )


class Instrument(Settings):
    """One instrument: its recordings, and settings that differ from the defaults."""

    sources: Paths = key(
        "recordings of the instrument: files, folders, globs (`**` for any depth; extensions in any letter case), `s3://`"
        " prefixes",
        ["recordings/rebana"],
        default=...,
    )
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = key(
        "random seed; the same manifest gives the same weights", 1, without="from the instrument's name"
    )


class LibraryManifest(StrictRecord):
    """The manifest as written."""

    name: Name = key("name of the library", "malay-percussion", default=...)
    store: PathText = key("store of datasets, runs and models: a folder or `s3://bucket/prefix`", "./store", default=...)
    max_concurrent: Annotated[int, Field(ge=1, strict=True)] | None = key(
        "number of instruments that train at the same time", 8, without="as many as fit"
    )
    price: Number | None = key(
        "price of a GPU for an hour, in any currency, from which `plan`, `run` and `status` calculate the cost of the training",
        2.5,
        without="no cost",
        gt=0,
    )
    on_end: OnEnd | None = key(
        "when `run` or `train` has ended, successful or not: a program and its arguments, which gets a summary as JSON on its"
        " stdin, or an address to which it is posted, see docs/operations.md",
        ["./notify.sh", "night"],
        "https://example.org/night",
        without="nothing",
    )
    defaults: Settings = key("settings of all instruments", {"config": "v2_small"}, default=Settings(), without="none")
    instruments: dict[Name, Instrument] = key(
        "the instruments by name: letters, digits, `.`, `_` and `-`, at most 63",
        {"rebana": {"sources": ["recordings/rebana"]}},
        default=...,
        min_length=1,
    )

    @model_validator(mode="after")
    def _names_differ_in_more_than_case(self) -> LibraryManifest:
        seen: dict[str, str] = {}
        for name in self.instruments:
            if name.lower() in seen:
                context = {"one": seen[name.lower()], "other": name, "fix": "rename one of them"}
                raise PydanticCustomError("case", "{one} and {other} would be the same folder on some disks", context)
            seen[name.lower()] = name
        return self

    @model_validator(mode="after")
    def _one_base_for_all(self) -> LibraryManifest:
        for name, instrument in self.instruments.items():
            if instrument.base is not None and instrument.base.train:
                context = {"name": name, "fix": "write it in defaults: {base: {train: true}}"}
                raise PydanticCustomError(
                    "base_place", "{name} requests a joint base, which is trained on all instruments", context
                )
        if self.defaults.base is not None and self.defaults.base.train and base_name(self.name) in self.instruments:
            context = {"name": base_name(self.name), "fix": "rename that instrument"}
            raise PydanticCustomError("base_name", "{name} is the name of the joint base", context)
        return self


def base_name(library: str) -> str:
    """The name of a library's joint base."""
    return f"{library[:58]}-base"


HOUSE_DEFAULTS = Settings(
    config=("v2_small",),
    sample_rate=44100,
    channels=1,
    budget=Budget(hours=4),
    override={},
    checkpoint=CheckpointPolicy(),
    placement=Placement(),
    workers=1,
    credit={},
    augment=STOCK_AUGMENTATIONS,
    losses={},
    exports=(),
    metrics=(),
    compute=(),
)
