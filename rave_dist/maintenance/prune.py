"""Removes what a store no longer needs: checkpoints, old versions of models, and data that nothing refers to.

Kept is whatever a pointer, an unfinished run, an instrument's record, a kept card or an unfinished conversion refers to:

- of each model the latest version and the newest few before it, and those that are the initial weights of a run;
- the checkpoints of unfinished runs, and those from which an unfinished run starts; without its checkpoints a finished run
  cannot be continued with a larger budget;
- a finished run while a kept card or its instrument's record refers to it;
- what writers that were killed left behind, for a day, and whatever does not have a name that rave-dist gives;
- a dataset while a library's pointer, a kept run or a kept card refers to it; a shard while a kept dataset does; initial
  weights while a kept run does; the result of a dry run while its instrument has a kept run;
- an uploaded recording while the listing of an instrument names it;
- the parts of a long recording until the conversion has ended.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from rave_dist.errors import ConfigurationError
from rave_dist.identity import ID_LENGTH
from rave_dist.records import (
    UPLOADS,
    BaseFolder,
    ConversionRequest,
    DatasetManifest,
    DatasetPointer,
    DryRunResult,
    ModelCard,
    ModelFolder,
    Publication,
    Record,
    RunFolder,
    RunRecord,
    RunResult,
    TrainingSpec,
    UploadedRecordings,
)
from rave_dist.records.folders import ConversionFolder, DatasetFolder
from rave_dist.storage.backend import Entry
from rave_dist.storage.store import Store

Kind = Literal[
    "checkpoints", "models", "runs", "datasets", "shards", "bases", "dry runs", "recordings", "parts", "unfinished writes"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

KEEP = 2
"""Versions of a model that are kept in addition to the latest one."""

_ID = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
_UPLOAD = re.compile(r"/[0-9a-f]{64}(\.[^./]+)?$")
_SHARD = re.compile(r"/shard-[^/]+\.parquet$")

_Any = TypeVar("_Any", bound=Record)


class Removable(Record):
    """Something that a store no longer needs: its folder or key, its objects in the order of removal, and their bytes.

    Unfinished writes are identified by tags too, because S3 may hold several uploads to one key.
    """

    kind: Kind
    place: str
    keys: tuple[str, ...]
    tags: tuple[str, ...] = ()
    bytes: int


class Pruned(Record):
    """The outcome of ``rave-dist prune``: what a store does not need, and whether it was removed."""

    store: str
    removed: bool
    items: tuple[Removable, ...]

    def totals(self) -> dict[Kind, tuple[int, int, int]]:
        """The numbers of items, objects and bytes of each kind that occurs, in the order of `KINDS`."""
        by_kind = {kind: [item for item in self.items if item.kind == kind] for kind in KINDS}
        return {
            kind: (len(items), sum(len(item.keys) for item in items), sum(item.bytes for item in items))
            for kind, items in by_kind.items()
            if items
        }

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist prune``."""
        names = ("items", "objects", "bytes")
        kinds = {kind: dict(zip(names, numbers, strict=True)) for kind, numbers in self.totals().items()}
        return {**super().to_json(), "kinds": kinds, "bytes": sum(item.bytes for item in self.items)}


def find_removable(store: Store, *, keep: int = KEEP) -> list[Removable]:
    """What a store no longer needs, by kind.

    Args:
        store: only read.
        keep: versions of each model that are kept in addition to the latest one.

    Raises:
        ConfigurationError: ``keep`` is negative.
        StoreError: the store or a record in it cannot be read, so that what it refers to is not known.
    """
    if keep < 0:
        raise ConfigurationError("the number of versions to keep is negative", where="keep", fix="set it to 0 or more")
    return [*_Survey(store, keep).removable(), *_unfinished(store)]


def remove(store: Store, item: Removable) -> None:
    """Removes an item of `find_removable`; after an interruption the rest of it is found again.

    Raises:
        StoreError: the store cannot be written.
    """
    if item.kind == "unfinished writes":
        for key, tag in zip(item.keys, item.tags, strict=True):
            store.discard(Entry(key, bytes=0, tag=tag))
        return
    for key in item.keys:
        store.delete(key)


def _unfinished(store: Store) -> Iterator[Removable]:
    """What killed writers left behind, by folder."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.unfinished():
        folders[entry.key.rpartition("/")[0]].append(entry)
    for folder, entries in folders.items():
        keys, tags = tuple(entry.key for entry in entries), tuple(entry.tag for entry in entries)
        size = sum(entry.bytes for entry in entries)
        yield Removable(kind="unfinished writes", place=folder, keys=keys, tags=tags, bytes=size)


class _Survey:
    """The contents of a store, and what in it refers to what."""

    def __init__(self, store: Store, keep: int) -> None:
        self._store, self._keep = store, keep
        parts = ("runs", "models", "datasets", "bases", "dry_runs", "conversions", "jobs", "recordings")
        self._bytes = dict(sorted((entry.key, entry.bytes) for part in parts for entry in store.list(part)))

    def removable(self) -> Iterator[Removable]:
        for folder, run in self._runs.items():
            keys = self._below(folder)
            if folder not in self._kept_runs:
                yield self._item("runs", folder, keys, RunFolder(folder).spec)
            elif run is not None and folder in self._complete and run.run_id not in self._start_points:
                checkpoints = str(RunFolder(folder).checkpoints)
                keys = [key for key in keys if key.startswith(f"{checkpoints}/")]
                sides = [key for key in keys if key.endswith(".json")]
                if keys:
                    yield self._item("checkpoints", checkpoints, keys, *sides)
        for name, version in sorted(self._versions - {(card.name, card.version) for card in self._kept_cards}):
            model = ModelFolder.of(name, version)
            keys = [*self._below(str(model.root)), *self._publications(name, version)]
            yield self._item("models", str(model.root), keys, model.card)
        for key in sorted(self._manifests.keys() - self._kept_manifests.keys()):
            yield self._item("datasets", key.rpartition("/")[0], [key])
        used = {shard.key for manifest in self._kept_manifests.values() for shard in manifest.shards}
        for key in self._keys("datasets/*/shards/"):
            if key not in used and _SHARD.search(key):
                yield self._item("shards", key, [key])
        bases = {spec.base for spec in self._kept_specs}
        for base in self._folders("bases/*/"):
            if base.rpartition("/")[2] not in bases:
                yield self._item("bases", base, self._below(base), BaseFolder(base).record)
        for parts in self._folders("conversions/*/parts/*/"):
            if ConversionFolder(parts.rpartition("/parts/")[0]).record in self._bytes:
                yield self._item("parts", parts, self._below(parts))
        instruments = {spec.instrument for spec in self._kept_specs}
        for key in self._records_in("dry_runs/"):
            if self._load(DryRunResult, key).instrument not in instruments:
                yield self._item("dry runs", key, [key])
        uploads = (self._load(UploadedRecordings, key) for key in self._records_in("recordings/listings/*/"))
        named = {recording.key for listing in uploads for recording in listing.recordings}
        for key in self._keys(f"{UPLOADS}/"):
            if key not in named and _UPLOAD.search(key):
                yield self._item("recordings", key, [key])

    # ------------------------------------------------------------ models

    @cached_property
    def _versions(self) -> set[tuple[str, str]]:
        """All versions of models, also those without a card, which a publisher that died left."""
        folders = (folder.split("/") for folder in self._folders("models/*/*/"))
        return {(name, version) for _, name, version in folders}

    @cached_property
    def _kept_cards(self) -> list[ModelCard]:
        cards: dict[str, list[ModelCard]] = defaultdict(list)
        for name, version in sorted(self._versions):
            key = ModelFolder.of(name, version).card
            if key in self._bytes:
                cards[name].append(self._load(ModelCard, key))
        needed = {record.model for record in self._records.values()} | set(self._models_of_conversions())
        bases = {run.base for run in self._runs.values() if run is not None}
        kept = []
        for versions in cards.values():
            versions.sort(key=lambda card: (card.publication, card.created_at), reverse=True)
            kept += versions[: 1 + self._keep]
            kept += [c for c in versions[1 + self._keep :] if c.reference in needed or c.version in bases]
        return kept

    def _models_of_conversions(self) -> Iterator[str]:
        """The models of unfinished conversions and of jobs."""
        for key in self._keys("conversions/"):
            folder = ConversionFolder(key.rpartition("/")[0])
            if key == folder.request and folder.record not in self._bytes:
                yield self._load(ConversionRequest, key).model
        for key in self._records_in("jobs/"):
            job = self._store.read_json(key)
            if isinstance(job, dict):
                yield str(job.get("model"))

    def _publications(self, name: str, version: str) -> list[str]:
        keys = self._records_in(f"{ModelFolder.publications(name)}/")
        return [key for key in keys if self._load(Publication, key).version == version]

    # ------------------------------------------------------------ runs

    @cached_property
    def _runs(self) -> dict[str, TrainingSpec | None]:
        """The runs by folder; None without parameters, which only an interrupted removal leaves."""
        specs = {folder: str(RunFolder(folder).spec) for folder in self._folders("runs/*/*/*/")}
        return {folder: self._load(TrainingSpec, key) if key in self._bytes else None for folder, key in specs.items()}

    @cached_property
    def _records(self) -> dict[str, RunRecord]:
        """The records of instruments by the folder of their run."""
        keys = (key for key in self._keys("runs/*/*/") if key.endswith("/record.json") and key.count("/") == 3)
        records = (self._load(RunRecord, key) for key in keys)
        return {str(record.folder.root): record for record in records}

    @cached_property
    def _start_points(self) -> set[str]:
        """The runs from whose checkpoints unfinished runs start."""
        return {
            run.continues.run_id
            for folder, run in self._runs.items()
            if run is not None and run.continues is not None and folder not in self._complete
        }

    @cached_property
    def _kept_runs(self) -> set[str]:
        cards = {card.run_key for card in self._kept_cards}
        return {
            folder
            for folder, run in self._runs.items()
            if folder in self._records
            or folder in cards
            or (run is not None and (run.run_id in self._start_points or folder not in self._complete))
        }

    @cached_property
    def _kept_specs(self) -> list[TrainingSpec]:
        return [run for folder, run in self._runs.items() if run is not None and folder in self._kept_runs]

    @cached_property
    def _complete(self) -> set[str]:
        """The folders of finished runs."""
        results = {folder: str(RunFolder(folder).result) for folder in self._runs}
        return {folder for folder, key in results.items() if key in self._bytes and self._load(RunResult, key).complete}

    # ------------------------------------------------------------ datasets

    @cached_property
    def _manifests(self) -> dict[str, DatasetManifest]:
        folders = {key.rpartition("/")[0] for key in self._keys("datasets/*/*/")}
        keys = sorted(key for folder in folders if (key := DatasetFolder(folder).manifest) in self._bytes)
        manifests = {key: self._load(DatasetManifest, key) for key in keys}
        return {key: manifest for key, manifest in manifests.items() if key == manifest.folder.manifest}

    @cached_property
    def _kept_manifests(self) -> dict[str, DatasetManifest]:
        needed = {(spec.instrument, spec.dataset) for spec in self._kept_specs}
        needed |= {(card.name, card.dataset) for card in self._kept_cards}
        for key in self._records_in("datasets/*/latest/"):
            pointer = self._load(DatasetPointer, key)
            needed |= {(key.split("/")[1], dataset) for dataset in (pointer.id, *pointer.recipes.values())}
        return {key: manifest for key, manifest in self._manifests.items() if (manifest.instrument, manifest.id) in needed}

    # ------------------------------------------------------------ keys

    def _keys(self, pattern: str) -> list[str]:
        """The keys below a folder, in order; a ``*`` stands for any name of one folder."""
        parts = pattern.rstrip("/").split("/")
        found = ((key, key.split("/")) for key in self._bytes)
        return [
            key for key, own in found if len(own) > len(parts) and all(p in ("*", o) for p, o in zip(parts, own, strict=False))
        ]

    def _folders(self, pattern: str) -> list[str]:
        """The folders of a pattern that are named after an id, in order; others are not ours."""
        depth = pattern.count("/")
        folders = dict.fromkeys("/".join(key.split("/")[:depth]) for key in self._keys(pattern))
        return [folder for folder in folders if _ID.fullmatch(folder.rpartition("/")[2])]

    def _records_in(self, pattern: str) -> list[str]:
        """The records that are in a folder itself; hidden files are of other programs."""
        depth, hidden = pattern.count("/"), re.compile(r"/\.[^/]*$")
        keys = (key for key in self._keys(pattern) if key.endswith(".json") and key.count("/") == depth)
        return [key for key in keys if not hidden.search(key)]

    def _below(self, folder: str) -> list[str]:
        return [key for key in self._bytes if key.startswith(f"{folder}/")]

    def _load(self, kind: type[_Any], key: str) -> _Any:
        return kind.load(self._store, key)

    def _item(self, kind: Kind, place: str, keys: Iterable[str], *first: str) -> Removable:
        """An item whose markers are deleted first, so that half of it is never taken for the whole."""
        ordered = tuple(sorted(keys, key=lambda key: (key not in first, key)))
        return Removable(kind=kind, place=place, keys=ordered, bytes=sum(self._bytes[key] for key in ordered))
