"""The functions of ``import rave_dist as rd``: the pipeline, called with paths or objects, without output by default.

Functions of a library accept the path of its manifest or a `Library`; functions of a store accept its address or a `Store`.
``progress`` is None for silence, True for the display of the command line on stderr, or an object with the methods of
`rave_dist.progress.Progress`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rave_dist import pipeline
from rave_dist.arguments import AnyLibrary, AnyProgress, AnyStore, Names, library_of, names_of, reporting, store_of
from rave_dist.maintenance.prune import KEEP, Pruned
from rave_dist.records import RunRecord
from rave_dist.views import PublishedModel

if TYPE_CHECKING:
    from rave_dist.checks import LibraryCheck
    from rave_dist.library_stages import Ingested
    from rave_dist.maintenance.verify import Verification
    from rave_dist.pipeline import LibraryRun


def check(library: AnyLibrary, only: Names = None, *, progress: AnyProgress = None) -> LibraryCheck:
    """Reports the planned runs, the problems and their fixes; trains nothing.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None checks all.
        progress: None is silent, True shows it on stderr.

    Returns:
        One check per instrument: recordings, seconds of audio, parameters, steps, bytes of memory, problems with a fix.

    Raises:
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be written.

    Example:
        >>> checks = rd.check("library.yaml")
        >>> [(c.name, c.ok, c.sources, c.seconds) for c in checks.instruments]
        [('rebana', True, 2, 12.0)]
    """
    with reporting(progress) as shown:
        return pipeline.check(library_of(library), names_of(only), progress=shown)


def ingest(library: AnyLibrary, only: Names = None, *, progress: AnyProgress = None) -> list[Ingested]:
    """Converts recordings to datasets in the store; every second is used or rejected with a reason.

    Unchanged recordings are not read again.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None selects all.
        progress: None is silent, True shows it on stderr.

    Returns:
        One outcome per instrument: its dataset manifest, or the error.

    Raises:
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be written.
        ClusterError: Ray cannot be started or reached.
        InUseError: another command is at work on the library.

    Example:
        >>> [item] = rd.ingest("library.yaml")
        >>> item.name, item.complete, round(item.manifest.used_seconds)
        ('rebana', True, 12)
    """
    with reporting(progress) as shown:
        return pipeline.ingest(library_of(library), names_of(only), progress=shown)


def train(
    library: AnyLibrary, only: Names = None, *, deadline_seconds: float | None = None, progress: AnyProgress = None
) -> list[RunRecord]:
    """Trains ingested instruments concurrently and publishes each model when its run ends.

    After an interruption, the same call resumes from the last checkpoints; finished instruments are skipped.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None trains all.
        deadline_seconds: limits the budgets so that all end within this time from now.
        progress: None is silent, True shows it on stderr.

    Returns:
        One run record per instrument: state, step, validation distances, the model or the error.

    Raises:
        ConfigurationError: the deadline leaves no time for training.
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be written.
        ClusterError: Ray cannot be started or reached.
        InUseError: another command is at work on the library.

    Example:
        >>> _ = rd.ingest("library.yaml")
        >>> [record] = rd.train("library.yaml")
        >>> record.instrument, record.state, record.step
        ('rebana', 'done', 9)
    """
    with reporting(progress) as shown:
        return pipeline.train(library_of(library), names_of(only), deadline_seconds=deadline_seconds, progress=shown)


def publish(library: AnyLibrary, only: Names = None, *, progress: AnyProgress = None) -> list[RunRecord]:
    """Publishes models from the newest checkpoints of stopped or running instruments; training can continue unaffected.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None publishes all.
        progress: None is silent, True shows it on stderr.

    Returns:
        One run record per instrument, with the model or the reason why there is none.

    Raises:
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be read or written.

    Example:
        >>> _ = rd.ingest("library.yaml"), rd.train("library.yaml")
        >>> [record] = rd.publish("library.yaml")
        >>> record.model == rd.find_model("store", "rebana").reference
        True
    """
    with reporting(progress) as shown:
        return pipeline.publish(library_of(library), names_of(only), progress=shown)


def run(
    library: AnyLibrary, only: Names = None, *, deadline_seconds: float | None = None, progress: AnyProgress = None
) -> LibraryRun:
    """Runs all stages: check, ingest, train, publish, report. A failed instrument does not stop the others.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None selects all.
        deadline_seconds: limits the budgets so that all end within this time from now.
        progress: None is silent, True shows it on stderr.

    Returns:
        All run records, the outcomes of ingest, and the path or address of the page; ``complete`` if nothing failed.

    Raises:
        ConfigurationError: the deadline leaves no time for training.
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be written.
        ClusterError: Ray cannot be started or reached.
        InUseError: another command is at work on the library.

    Example:
        >>> outcome = rd.run("library.yaml")
        >>> outcome.complete, [record.state for record in outcome.records]
        (True, ['done'])
    """
    with reporting(progress) as shown:
        return pipeline.run(library_of(library), names_of(only), deadline_seconds=deadline_seconds, progress=shown)


def status(library: AnyLibrary, only: Names = None) -> list[RunRecord]:
    """Reads the state of each instrument from the store; safe during training.

    Args:
        library: the manifest's path, or a `Library`.
        only: names of instruments; None reads all.

    Returns:
        One run record per instrument; ``waiting`` where nothing was trained.

    Raises:
        LibraryError: the manifest is wrong, or has no such instrument.
        StoreError: the store cannot be read.

    Example:
        >>> [(record.instrument, record.state) for record in rd.status("library.yaml")]
        [('rebana', 'waiting')]
    """
    return pipeline.status(library_of(library), names_of(only))


def report(library: AnyLibrary, *, progress: AnyProgress = None) -> str:
    """Writes the library's page: training curves, spectrograms, players, facts and errors, in one HTML file.

    Args:
        library: the manifest's path, or a `Library`.
        progress: None is silent, True shows it on stderr.

    Returns:
        The page's path or ``s3://`` address.

    Raises:
        LibraryError: the manifest is wrong.
        StoreError: the store cannot be read or written.

    Example:
        >>> page = rd.report("library.yaml")
        >>> page.endswith("store/report/drums/index.html")
        True
    """
    with reporting(progress) as shown:
        return pipeline.report(library_of(library), progress=shown)


def list_models(store: AnyStore) -> list[PublishedModel]:
    """Lists all versions of the published models, by name and age.

    Args:
        store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.

    Returns:
        Their model cards.

    Raises:
        StoreError: the store cannot be read or does not exist.

    Example:
        >>> [(card.name, card.sample_rate, card.channels) for card in rd.list_models("store")]
        [('rebana', 44100, 1)]
    """
    place = store_of(store)
    return [PublishedModel.of(card, place) for card in pipeline.models(place)]


def find_model(store: AnyStore, model: str) -> PublishedModel:
    """Finds one published model.

    Args:
        store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
        model: NAME for its latest version, NAME@VERSION, or NAME@ and the beginning of a version.

    Returns:
        Its model card.

    Raises:
        ModelNotFoundError: no such model or version.
        StoreError: the store cannot be read or does not exist.

    Example:
        >>> card = rd.find_model("store", "rebana")
        >>> card.reference == f"rebana@{card.version}"
        True
        >>> rd.find_model("store", "rebanna")
        Traceback (most recent call last):
        ...
        rave_dist.errors.ModelNotFoundError: ...no model is called 'rebanna'...
    """
    place = store_of(store)
    return PublishedModel.of(pipeline.find_model(place, model), place)


def verify(store: AnyStore, *, read_data: bool | str = False, progress: AnyProgress = None) -> Verification:
    """Verifies a store: its records can be read, the files that they name exist with their sizes, on request their bytes.

    Args:
        store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
        read_data: also read the files; ``"n/t"`` reads the n-th of t parts of them.
        progress: None is silent, True shows it on stderr.

    Returns:
        The numbers of records and files, and the problems with their fixes by key; ``ok`` if there are none.

    Raises:
        StoreError: the store cannot be read or does not exist.
        ConfigurationError: ``read_data`` is not a part.

    Example:
        >>> found = rd.verify("store", read_data=True)
        >>> found.ok, found.files_read
        (True, 2)
    """
    with reporting(progress) as shown:
        return pipeline.verify(store_of(store), read_data="1/1" if read_data is True else read_data or None, progress=shown)


def prune(store: AnyStore, *, keep: int = KEEP, remove: bool = False, progress: AnyProgress = None) -> Pruned:
    """Lists, and with ``remove`` removes, what a store no longer needs; see ``rave-dist prune --help``.

    Args:
        store: a folder, an ``s3://bucket/prefix`` address, or a `Store`.
        keep: versions of each model to keep in addition to the latest.
        remove: remove it; otherwise it is only listed.
        progress: None is silent, True shows it on stderr.

    Returns:
        The items with their objects and bytes, and whether they were removed.

    Raises:
        InUseError: a command is at work on the store, and ``remove`` is set.
        StoreError: the store or a record in it cannot be read, or the store does not exist.

    Example:
        >>> rd.Store("store").write_bytes("datasets/rebana/shards/shard-0123.parquet", b"of no dataset")
        >>> [(item.kind, item.bytes) for item in rd.prune("store", remove=True).items], rd.prune("store").items
        ([('shards', 13)], ())
    """
    with reporting(progress) as shown:
        return pipeline.prune(store_of(store), keep=keep, removes=remove, progress=shown)
