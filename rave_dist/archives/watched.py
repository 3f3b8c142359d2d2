"""Conversion of a folder that is watched: the recordings in it and those that arrive, with the models loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rave_dist import signals
from rave_dist.archives.outcome import check_page, write_outcome
from rave_dist.errors import ConversionError
from rave_dist.progress import SILENT, Progress
from rave_dist.records import ConversionParameters, ConversionRecord
from rave_dist.storage.store import Store

_CHUNK_PATIENCE_SECONDS = 30.0  # after a signal, until the models have finished a chunk
_END_PATIENCE_SECONDS = 600.0  # and for records, tables and page


def watch(
    store: Store,
    models: Sequence[str] | None,
    inputs: Sequence[str],
    output: str,
    *,
    parameters: ConversionParameters,
    chunk_seconds: float,
    workers: int | None = None,
    trust: bool = False,
    page: str | Path | None = None,
    progress: Progress = SILENT,
) -> tuple[ConversionRecord, ...]:
    """Converts the recordings of a folder and those that arrive in it, in this process, until Ctrl-C or SIGTERM.

    Args:
        store: of the models, the journals and the records.
        models: NAME or NAME@VERSION; None for the latest version of every published model.
        inputs: one folder or prefix. With several, one that is empty for a time would change the names of all outputs.
        output: a folder or prefix.
        parameters: of the conversions.
        chunk_seconds: seconds of audio in a model at once.
        workers: not supported.
        trust: load a model file with operators that no export has.
        page: an HTML file to write at the end.
        progress: receives a line for each round and each failure.

    Returns:
        The record of each model, about all recordings since the start.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: not one folder, or OUTPUT is inside of it; workers; chunks too short; too many models.
        StoreError: the store or OUTPUT cannot be used.
        KeyboardInterrupt: it was stopped before anything arrived.
    """
    _refuse(inputs, workers)
    check_page(page)
    progress.stage("loading models")
    from rave_dist.conversion.follow import convert_arrivals, follow, look_at
    from rave_dist.conversion.in_process import load_all
    from rave_dist.conversion.stream import chunk_samples
    from rave_dist.registry.store import find_all

    cards = find_all(store, models)
    look = look_at(cards, inputs[0], output, parameters, apart=models is None)
    for card in cards:
        chunk_samples(card, chunk_seconds)
        parameters.controls.resolved(card.named_latents, where=card.reference).check(card.latents, where=card.reference)
    Store(output).check_writable()
    converters = load_all(store, cards, trust=trust)
    patience = _CHUNK_PATIENCE_SECONDS

    def stopping() -> None:
        nonlocal patience
        patience = _END_PATIENCE_SECONDS
        progress.stage("stopping")

    progress.stage("waiting for recordings")
    with signals.allow(lambda: patience):
        arrivals = follow(look, say=progress.say)
        plans, records = convert_arrivals(
            store, arrivals, converters, chunk_seconds=chunk_seconds, say=progress.say, stopping=stopping
        )
        write_outcome(store, plans, records, page=page, progress=progress)
    return records


def _refuse(inputs: Sequence[str], workers: int | None) -> None:
    if len(inputs) != 1:
        raise ConversionError(
            "one folder can be watched at a time",
            where="--watch",
            fix="give the folder that contains them, or run a command for each",
        )
    if workers is not None:
        raise ConversionError("--watch converts in this process", where="--workers", fix="leave out --workers")
