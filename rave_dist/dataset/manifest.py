"""Assembling a dataset's manifest from prepared sources and earlier datasets: new sources, duplicates, shards.

Shards are append-only and shared by all datasets of an instrument; a manifest selects sources from them. A dataset that differs
from an earlier one by one recording costs one recording, and earlier datasets stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rave_dist.audio.io.sources import AudioSource, Listing
from rave_dist.dataset.prepare import Prepared
from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.reader import READER
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import DatasetError
from rave_dist.identity import content_id
from rave_dist.records import DatasetFolder, DatasetManifest, DatasetPointer, Rejection, Shard, SourceRecord, now
from rave_dist.storage.store import Store


@dataclass
class Earlier:
    """Earlier datasets of an instrument with the same recipe.

    Attributes:
        records: records of unchanged sources, by name and fingerprint.
        shards: per dataset, the shards that hold their rows.
    """

    records: dict[tuple[str, str], SourceRecord] = field(default_factory=dict)
    shards: list[tuple[Shard, ...]] = field(default_factory=list)

    def record(self, source: AudioSource) -> SourceRecord | None:
        """The record of an unchanged source, if any."""
        return self.records.get((source.name, source.fingerprint))

    @property
    def stored_ids(self) -> frozenset[str]:
        """Sources whose rows are in the store."""
        return frozenset(i for shards in self.shards for shard in shards for i in shard.source_ids)


def load_earlier(store: Store, instrument: str, recipe: Recipe) -> Earlier:
    """Reads the last datasets of an instrument with this recipe, of all libraries of a store.

    Sources in shards that are missing or cut, and those that an earlier version of the code read, count as new.
    """
    pointers = (DatasetPointer.find(store, entry.key) for entry in store.list(DatasetFolder.pointers(instrument)))
    ids = {pointer.recipes.get(recipe.id, "") for pointer in pointers if pointer is not None}
    earlier = Earlier()
    present = {entry.key: entry.bytes for entry in store.list(DatasetFolder.shards(instrument))} if ids else {}
    for dataset_id in sorted(ids - {""}):
        try:
            manifest = load_manifest(store, instrument, dataset_id)
        except DatasetError:
            continue  # missing or damaged: its sources are read again
        missing = {i for shard in manifest.shards if present.get(shard.key) != shard.bytes for i in shard.source_ids}
        shards = [
            s.model_copy(update={"source_ids": tuple(i for i in s.source_ids if i not in missing)}) for s in manifest.shards
        ]
        earlier.shards.append(tuple(s for s in shards if s.source_ids))
        for record in (*manifest.sources, *manifest.unused):
            if record.source_id not in missing and record.reader == READER:
                earlier.records[record.source, record.fingerprint] = record
    return earlier


def assemble(
    prepared: Sequence[Prepared],
    new_shards: Sequence[tuple[Shard, ...]],
    *,
    instrument: str,
    recipe: Recipe,
    credit: dict[str, str],
    earlier: Earlier,
    listing: Listing | None = None,
) -> DatasetManifest:
    """The manifest of a dataset, not yet written.

    Args:
        prepared: the outcome for every source, old or new.
        new_shards: per task, the parts that it wrote.
        instrument: name of the instrument.
        recipe: parameters.
        credit: attribution.
        earlier: the earlier datasets.
        listing: of the sources, for what was passed over.
    """
    used: list[SourceRecord] = []
    unused: list[SourceRecord] = []
    rejected = [p.rejection for p in prepared if p.rejection is not None]
    first: dict[str, str] = {}
    for record in sorted((p.record for p in prepared if p.record is not None), key=lambda r: r.source):
        if record.spans and record.pcm_sha256 in first:
            unused.append(record)
            reason = f"the same recording as {first[record.pcm_sha256]}"
            rejected.append(Rejection(source=record.source, seconds=record.seconds, reason=reason))
            continue
        rejected.extend(record.rejections)
        if record.spans:
            first[record.pcm_sha256] = record.source
            used.append(record)
        else:
            unused.append(record)
    return DatasetManifest(
        id=content_id({"sources": sorted(record.pcm_sha256 for record in used), "recipe": recipe.id}),
        instrument=instrument,
        sample_rate=recipe.sample_rate,
        channels=recipe.channels,
        sources=tuple(used),
        rejected=tuple(sorted(rejected, key=lambda r: r.source)),
        shards=_select([*earlier.shards, *new_shards], {record.source_id for record in used}),
        used_seconds=sum(record.used_seconds for record in used),
        credit=credit,
        recipe=recipe.id,
        unused=tuple(unused),
        passed_over=listing.passed_over if listing else (),
        notes=listing.notes if listing else (),
        created_at=now(),
    )


def _select(bundles: Iterable[tuple[Shard, ...]], wanted: set[str]) -> tuple[Shard, ...]:
    """The shards that hold the wanted sources, each source from the first bundle that has it."""
    chosen: dict[str, Shard] = {}
    left = set(wanted)
    for bundle in bundles:
        here = left & {source_id for shard in bundle for source_id in shard.source_ids}
        left -= here
        for shard in bundle:
            ids = [source_id for source_id in shard.source_ids if source_id in here]
            if ids:
                before = chosen[shard.key].source_ids if shard.key in chosen else ()
                chosen[shard.key] = shard.model_copy(update={"source_ids": (*before, *ids)})
    return tuple(chosen[key] for key in sorted(chosen))


def write_manifest(store: Store, manifest: DatasetManifest, library: str | None) -> DatasetManifest:
    """Writes a dataset's manifest, unless it exists, and then the library's pointer to it.

    Returns:
        The manifest in the store.
    """
    try:
        stored = load_manifest(store, manifest.instrument, manifest.id)
    except DatasetError:
        stored = None
    if stored is not None and stored == manifest.model_copy(update={"created_at": stored.created_at}):
        manifest = stored
    else:
        manifest.save(store, manifest.folder.manifest)
    if library is not None:
        key = DatasetFolder.latest(manifest.instrument, library)
        pointer = DatasetPointer.find(store, key)
        recipes = pointer.recipes if pointer else {}
        moved = DatasetPointer(id=manifest.id, recipes={**recipes, manifest.recipe: manifest.id})
        if moved != pointer:
            moved.save(store, key)
    return manifest
