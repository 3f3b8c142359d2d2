"""Whether a run belongs to the present manifest and recordings of its library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from rave_dist.audio.io.sources import AudioSource, list_sources
from rave_dist.errors import AudioError
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetFolder, DatasetManifest, RunRecord, TrainingSpec
from rave_dist.training.continuation import has_reached


def outdated(library: Library, record: RunRecord) -> tuple[str, ...]:
    """What has changed since an instrument's run: settings of the manifest, and recordings.

    Recordings are compared by file name and size; none is opened.

    Raises:
        StoreError: the store or a folder of recordings cannot be read.
    """
    return (*_settings(library, record), *_recordings(library, record))


def _settings(library: Library, record: RunRecord) -> Iterator[str]:
    if not record.run_id:
        return
    spec = TrainingSpec.find(library.store, record.folder.spec)
    if spec is None:
        return  # it failed before it began
    base = library.base(record.instrument)
    planned = library.training_spec(record.instrument, dataset=spec.dataset, base=spec.base)
    changed = spec.changes(planned)
    if (base is None) != (spec.base is None):
        changed.append("base")
    if changed == ["budget"] and has_reached(spec, planned, record.step):
        changed = []
    if changed:
        yield f"this run belongs to an earlier manifest: {', '.join(changed)} changed since"


def _recordings(library: Library, record: RunRecord) -> Iterator[str]:
    if not record.dataset:
        return
    dataset = DatasetManifest.find(library.store, DatasetFolder.of(record.instrument, record.dataset).manifest)
    if dataset is None:
        return
    try:
        sources = list_sources(library.sources(record.instrument))
    except AudioError as error:
        yield f"{error.where}: {error.what}"
        return
    changed = changed_recordings(dataset, sources)
    if changed:
        yield f"the recordings are not those of this run: {changed}"


def changed_recordings(dataset: DatasetManifest, sources: Sequence[AudioSource]) -> str:
    """How many recordings differ from those of a dataset by file name or size; empty if none does."""
    unreadable = {_name(rejection.source) for rejection in dataset.rejected if rejection.unreadable}
    known = _counted(((s.source, s.fingerprint) for s in (*dataset.sources, *dataset.unused)), without=unreadable)
    present = _counted(((s.name, s.fingerprint) for s in sources), without=unreadable)
    added, removed = (present - known).total(), (known - present).total()
    counts = ((added, "new or changed"), (removed, "missing or changed"))
    return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def _counted(files: Iterable[tuple[str, str]], *, without: Collection[str]) -> Counter[tuple[str, str]]:
    """Files by their name without the folder, which may have moved, and the size at the start of the fingerprint."""
    named = ((_name(path), fingerprint.partition("-")[0]) for path, fingerprint in files)
    return Counter((name, size) for name, size in named if name not in without)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
