"""A library: its manifest with the defaults applied and the paths resolved."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rave_dist.errors import LibraryError
from rave_dist.library.paths import resolved
from rave_dist.library.reading import read_manifest, read_stored_manifest, validate
from rave_dist.library.schema import HOUSE_DEFAULTS, LibraryManifest, Settings, base_name
from rave_dist.options import BaseSpec
from rave_dist.records import TrainingSpec
from rave_dist.storage.schemes import is_remote
from rave_dist.storage.store import Store
from rave_dist.suggest import suggest


class Library:
    """A validated manifest with its defaults applied and its paths resolved against the manifest's folder."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads and validates a manifest file.

        Args:
            path: the YAML file, or its address in a store; then relative paths in it are relative to the current folder.

        Raises:
            LibraryError: unreadable, not YAML, an unknown key, or a value of the wrong type.
            StoreError: the store cannot be read.

        Example:
            >>> rd.Library.load("library.yaml").name
            'drums'
        """
        if is_remote(str(path)):
            return cls(read_stored_manifest(str(path)), path=Path.cwd() / str(path).rpartition("/")[2])
        path = Path(os.path.expanduser(path))
        return cls(read_manifest(path), path=Path(os.path.abspath(path)))

    @classmethod
    def from_dict(cls, manifest: Mapping[str, Any], *, folder: Path | str = ".") -> Self:
        """Validates a manifest given as a dict.

        Args:
            manifest: the keys and values of a manifest file.
            folder: relative paths in it are relative to this folder.

        Raises:
            LibraryError: an unknown key, or a value of the wrong type.

        Example:
            >>> library = rd.Library.from_dict(
            ...     {"name": "drums", "store": "store", "instruments": {"rebana": {"sources": ["recordings/rebana"]}}}
            ... )
            >>> library.instruments
            ('rebana',)
        """
        place = Path(os.path.abspath(os.path.expanduser(folder))) / "library.yaml"
        return cls(validate(dict(manifest), where="the manifest"), path=place)

    def __init__(self, manifest: LibraryManifest, *, path: Path) -> None:
        self.manifest = manifest
        self.path = path
        self.name = manifest.name
        self.store = Store(resolved(path, manifest.store))

    @property
    def instruments(self) -> tuple[str, ...]:
        """The instruments' names, in the manifest's order.

        Example:
            >>> rd.Library.load("library.yaml").instruments
            ('rebana',)
        """
        return tuple(self.manifest.instruments)

    def sources(self, instrument: str) -> tuple[str, ...]:
        """Returns an instrument's source patterns: absolute paths or globs, or s3:// addresses.

        Args:
            instrument: its name.

        Example:
            >>> [source] = rd.Library.load("library.yaml").sources("rebana")
            >>> source == str(folder / "recordings" / "rebana")
            True
        """
        return tuple(resolved(self.path, source) for source in self.manifest.instruments[instrument].sources)

    def settings(self, instrument: str) -> Settings:
        """Returns an instrument's settings: its own values override the library's defaults, these the built-in ones.

        ``override`` and ``credit`` are merged key by key.

        Args:
            instrument: its name.

        Example:
            >>> settings = rd.Library.load("library.yaml").settings("rebana")
            >>> settings.config, settings.sample_rate, settings.budget.steps
            (('v2_tiny',), 44100, 9)
        """
        return _merged(HOUSE_DEFAULTS, self.manifest.defaults, self.manifest.instruments[instrument])

    def seed(self, instrument: str) -> int:
        """Returns an instrument's seed: that of the manifest, or else one derived from its name.

        Args:
            instrument: its name.

        Example:
            >>> rd.Library.load("library.yaml").seed("rebana")
            1057717292
        """
        seed = self.manifest.instruments[instrument].seed
        return _seed_of(instrument) if seed is None else seed

    def base(self, instrument: str) -> BaseSpec | None:
        """Returns an instrument's base, with an absolute path of a stock run; None for new weights.

        Args:
            instrument: its name.

        Example:
            >>> rd.Library.load("library.yaml").base("rebana") is None
            True
        """
        base = self.settings(instrument).base
        if base is None or base.stock is None:
            return base
        return base.model_copy(update={"stock": resolved(self.path, base.stock)})

    def training_spec(self, instrument: str, *, dataset: str, base: str | None = None) -> TrainingSpec:
        """Returns all parameters of an instrument's training run on a dataset.

        Args:
            instrument: its name.
            dataset: the dataset's id.
            base: the id of the initial weights in the store; None for new weights.

        Example:
            >>> spec = rd.Library.load("library.yaml").training_spec("rebana", dataset="0123456789ab")
            >>> spec.run_key == f"runs/drums/rebana/{spec.run_id}"
            True
        """
        settings = self.settings(instrument)
        initial = settings.base
        return TrainingSpec(
            library=self.name,
            instrument=instrument,
            dataset=dataset,
            seed=self.seed(instrument),
            base=base,
            freeze_encoder=initial is not None and initial.freeze_encoder,
            **{key: getattr(settings, key) for key in Settings.model_fields if key != "base"},
        )

    def base_spec(self, *, dataset: str) -> TrainingSpec | None:
        """Returns the training run of the joint base; None if ``defaults`` does not request one.

        Args:
            dataset: the id of the dataset of all instruments.

        Example:
            >>> rd.Library.load("library.yaml").base_spec(dataset="0123456789ab") is None
            True
        """
        settings = _merged(HOUSE_DEFAULTS, self.manifest.defaults)
        if settings.base is None or not settings.base.train:
            return None
        name = base_name(self.name)
        values = {key: getattr(settings, key) for key in Settings.model_fields if key != "base"}
        values["budget"] = settings.base.budget or settings.budget
        return TrainingSpec(library=self.name, instrument=name, dataset=dataset, seed=_seed_of(name), **values)

    def select(self, only: list[str] | None) -> tuple[str, ...]:
        """Returns the named instruments, or all.

        Args:
            only: names; None or an empty list selects all.

        Raises:
            LibraryError: the manifest has no such instrument.

        Example:
            >>> rd.Library.load("library.yaml").select(None)
            ('rebana',)
            >>> rd.Library.load("library.yaml").select(["rebanna"])
            Traceback (most recent call last):
            ...
            rave_dist.errors.LibraryError: ...no instrument is called 'rebanna'...
        """
        for name in only or ():
            if name not in self.instruments:
                raise LibraryError(
                    f"no instrument is called {name!r}", where=str(self.path), fix=suggest(name, self.instruments)
                )
        return tuple(only) if only else self.instruments


def load_library(path: Path | str) -> Library:
    """Reads and validates a manifest: `Library.load`.

    Raises:
        LibraryError: unreadable, not YAML, an unknown key, or a value of the wrong type.
    """
    return Library.load(path)


def _merged(*layers: Settings) -> Settings:
    """Settings in which later layers override earlier ones; ``override`` and ``credit`` are merged key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key in Settings.model_fields:
            value = getattr(layer, key)
            if value is not None:
                merged[key] = {**merged.get(key, {}), **value} if key in ("override", "credit") else value
    return Settings.model_construct(**merged)


def _seed_of(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
