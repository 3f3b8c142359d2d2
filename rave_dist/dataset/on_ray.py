"""Ingest on Ray Data: groups of sources are distributed, small rows with their outcomes are returned."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from rave_dist.audio.io.sources import AudioSource, find_sources
from rave_dist.cluster import head
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import Prepared, prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import ClusterError, StoreError
from rave_dist.records import DatasetManifest, Rejection, Shard
from rave_dist.storage.schemes import is_remote
from rave_dist.storage.store import Store

# A worker's start costs more than a second of CPU, 64 MiB of WAV about half of one; groups are small enough to balance load.
_GROUP_BYTES = (64 << 20, 256 << 20)
_GROUPS_PER_CPU = 4
_RETRIES = 2


def ingest(
    store: Store,
    instrument: str,
    patterns: Sequence[str],
    *,
    sample_rate: int,
    channels: int,
    credit: dict[str, str],
    library: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetManifest:
    """Converts an instrument's recordings to a dataset; needs a connected Ray.

    Unchanged recordings of an earlier ingest are not read again. The manifest is written last, so that an interrupted
    ingest leaves no incomplete dataset.

    Args:
        store: of the dataset.
        instrument: name of the instrument.
        patterns: files, folders, globs, s3:// prefixes.
        sample_rate: of the dataset, in Hz.
        channels: of the dataset.
        credit: attribution.
        library: the library, of which this becomes the instrument's current dataset.
        progress: called with the number of finished sources and the total.

    Raises:
        AudioError: no recording matches a pattern.
        StoreError: the store, or a worker's temporary folder, cannot be written.
        ClusterError: the recordings are files of a node that gives Ray no CPU, or no worker can run.
    """
    recipe = Recipe(sample_rate=sample_rate, channels=channels)
    listing = find_sources(patterns)
    sources = listing.sources
    earlier = load_earlier(store, instrument, recipe)
    prepared = [Prepared(record=record) for source in sources if (record := earlier.record(source)) is not None]
    fresh = [source for source in sources if earlier.record(source) is None]
    shards: list[tuple[Shard, ...]] = []
    if progress is not None:
        progress(len(prepared), len(sources))
    work = partial(_prepare_group, store=store, instrument=instrument, recipe=recipe, known=earlier.stored_ids)
    for outcomes, parts in _run(work, fresh, store):
        prepared.extend(outcomes)
        shards.append(parts)
        if progress is not None:
            progress(len(prepared), len(sources))
    manifest = assemble(prepared, shards, instrument=instrument, recipe=recipe, credit=credit, earlier=earlier, listing=listing)
    return write_manifest(store, manifest, library)


def _run(
    work: Callable[[dict[str, Any]], list[dict[str, Any]]], sources: list[AudioSource], store: Store
) -> Iterator[tuple[list[Prepared], tuple[Shard, ...]]]:
    """Reads groups first, then the sources of groups whose worker died in turn; one that kills its worker is rejected."""
    left = {source.name: source for source in sources}
    for groups in (_groups(sources), None):
        if groups is None:
            groups = [[source] for source in left.values()]
        if not groups:
            return
        for outcomes, parts in _map(work, groups, store):
            for outcome in outcomes:
                left.pop(_name(outcome), None)
            yield outcomes, parts
    if len(left) == len(sources) > 1:
        raise ClusterError(
            "none of Ray's workers could read a recording",
            where=ray.get_runtime_context().gcs_address,
            fix="see the workers' logs in the dashboard; is rave-dist installed on every node?",
        )
    reason = "crashes the decoder"
    rejections = [Rejection(source=name, seconds=0.0, reason=reason, unreadable=True) for name in left]
    if rejections:
        yield [Prepared(rejection=rejection) for rejection in rejections], ()


def _name(outcome: Prepared) -> str:
    entry = outcome.record or outcome.rejection
    assert entry is not None
    return entry.source


def _groups(sources: Sequence[AudioSource]) -> list[list[AudioSource]]:
    """Groups of neighbouring sources of about equal bytes, so that many short files are few tasks and parts."""
    total = sum(source.bytes for source in sources)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    smallest, largest = _GROUP_BYTES
    size = min(max(total // (_GROUPS_PER_CPU * cpus), smallest), largest)
    groups: list[list[AudioSource]] = []
    held = size
    for source in sources:
        if held >= size:
            groups.append([])
            held = 0
        groups[-1].append(source)
        held += source.bytes
    return groups


def _map(
    work: Callable[[dict[str, Any]], list[dict[str, Any]]], groups: list[list[AudioSource]], store: Store
) -> Iterator[tuple[list[Prepared], tuple[Shard, ...]]]:
    is_local = store.is_local or any(not is_remote(source.uri) for group in groups for source in group)
    place = _here() if is_local and len(head.nodes()) > 1 else None
    with _quiet_data():
        rows = ray.data.from_items([{"group": pickle.dumps(group)} for group in groups], override_num_blocks=len(groups))
        with warnings.catch_warnings():
            # There is no other way to limit retries, and Ray Data retries without end a task that kills its worker.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            results = rows.flat_map(work, num_cpus=1, label_selector=place, max_retries=_RETRIES)
        for row in results.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield pickle.loads(row["result"])


def _here() -> dict[str, str]:
    """Requires this node for local files and folders, which other nodes may not have."""
    node_id = ray.get_runtime_context().get_node_id()
    node = head.nodes().get(node_id)
    if node is None or not node.total_resources.get("CPU", 0):
        raise ClusterError(
            "the recordings or the store are files of a node without CPUs for Ray",
            where=node_id,
            fix="put both on s3://, or give this node CPUs",
        )
    if head.is_draining(node):
        raise ClusterError(
            "the recordings or the store are files of a node that is to end",
            where=node_id,
            fix="put both on s3://, or run the command on another node",
        )
    return {"ray.io/node-id": node_id}


def _prepare_group(
    row: dict[str, Any], *, store: Store, instrument: str, recipe: Recipe, known: frozenset[str]
) -> list[dict[str, Any]]:
    try:
        outcomes, shards = prepare(pickle.loads(row["group"]), store=store, instrument=instrument, recipe=recipe, known=known)
    except StoreError as error:
        # As a row, because a failed block looks like a crashed worker.
        return [{"result": b"", "error": pickle.dumps(error)}]
    return [{"result": pickle.dumps((outcomes, tuple(shards))), "error": b""}]


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Configures Ray Data: no progress bars, and no failure of all groups when one worker dies."""
    context = ray.data.DataContext.get_current()
    before = (context.enable_progress_bars, context.max_errored_blocks)
    logger = logging.getLogger("ray.data")
    level = logger.level
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.max_errored_blocks = before
        logger.setLevel(level)
