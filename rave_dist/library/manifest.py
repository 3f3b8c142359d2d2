"""A library: its manifest with the defaults applied and the paths resolved."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

from rave_dist.errors import LibraryError
from rave_dist.library.reading import read_yaml, validate
from rave_dist.library.schema import HOUSE_DEFAULTS, LibraryManifest, Settings, base_name
from rave_dist.options import BaseSpec
from rave_dist.records import TrainingSpec
from rave_dist.storage.schemes import has_scheme
from rave_dist.storage.store import Store
from rave_dist.suggest import suggest


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
        LibraryError: unreadable, not YAML, an unknown key, or a value of the wrong type: with the place and the fix.
    """
    path = Path(path).expanduser()
    return Library(validate(read_yaml(path), where=str(path)), path=Path(os.path.abspath(path)))


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
