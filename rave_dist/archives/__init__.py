"""Conversion of whole archives with published models, in this process where that takes about a minute, otherwise on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rave_dist.archives.outcome import check_page, write_outcome
from rave_dist.archives.place import converting
from rave_dist.progress import SILENT, Progress
from rave_dist.records import ConversionParameters, ConversionRecord
from rave_dist.storage.store import Store


def convert(
    store: Store,
    models: Sequence[str] | None,
    inputs: Sequence[str],
    output: str,
    *,
    parameters: ConversionParameters,
    chunk_seconds: float,
    workers: int | None,
    trust: bool = False,
    page: str | Path | None = None,
    progress: Progress = SILENT,
) -> tuple[ConversionRecord, ...]:
    """Converts recordings with published models; each recording is decoded once for all of them.

    The results of one model lie in OUTPUT, those of several in a folder for each, ``OUTPUT/<model>``. A number of workers, or
    ``RAY_ADDRESS``, selects Ray. The output bytes are the same.

    Args:
        store: of the models, the journals and the records.
        models: NAME or NAME@VERSION; None for the latest version of every published model, in a folder for each.
        inputs: files, folders, globs or ``s3://`` prefixes.
        output: a folder or ``s3://`` prefix; for a single source and model it may be a file.
        parameters: of the conversions.
        chunk_seconds: seconds of audio in a model at once.
        workers: recordings converted at once, on Ray.
        trust: load a model file with operators that no export has.
        page: an HTML file to write at the end.
        progress: receives the number of finished outputs.

    Returns:
        The record of each model's conversion.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: no inputs, or OUTPUT inside or equal to an INPUT.
        ClusterError: Ray does not answer.
    """
    check_page(page)
    progress.stage("listing recordings")
    from rave_dist.audio.io.sources import find_sources
    from rave_dist.conversion.corpus import plan_conversions
    from rave_dist.conversion.job import begin, finish
    from rave_dist.registry.store import find_all

    find = partial(find_sources, listed=partial(progress.advance, total=0, unit="recordings"))
    # Before Ray, so that errors appear at once.
    plans = plan_conversions(find_all(store, models), inputs, output, parameters, apart=models is None, find=find)
    report = partial(progress.advance, unit="recordings" if len(plans) == 1 else "conversions")
    progress.stage("looking for finished ones")
    job = begin(store, plans, chunk_seconds=chunk_seconds, workers=workers, trust=trust, progress=report)
    with converting([job], workers=workers, progress=progress) as convert_all:
        progress.stage("converting")
        records = finish(job, convert_all(job), report)
    write_outcome(store, plans, records, page=page, progress=progress)
    return records
