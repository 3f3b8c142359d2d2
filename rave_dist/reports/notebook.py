"""HTML of libraries, models and conversions in a notebook, with the report's players and pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import local_copy
from rave_dist.audio.types import Audio
from rave_dist.errors import RaveDistError
from rave_dist.library.manifest import Library
from rave_dist.records import ConversionFolder, ConversionItem, ConversionRecord, ModelCard, RunRecord
from rave_dist.reports.facts import gather
from rave_dist.reports.listening import stored_examples
from rave_dist.reports.page import clock, model_players, template
from rave_dist.reports.players import make_player
from rave_dist.storage.store import Store

SHOWN_CONVERSIONS = 3
PREVIEW_SECONDS = 8.0
_FAILURES_SHOWN = 10


def library_html(library: Library, records: Sequence[RunRecord]) -> str:
    """A row per instrument: state, steps, seconds of audio, model."""
    rows = []
    notes = []
    for facts in gather(library.store, library, records):
        record = facts.record
        steps = f"{record.step:,} of {record.steps:,}" if record.steps else "–"
        used = clock(facts.manifest.used_seconds) if facts.manifest else "not ingested"
        rows.append((facts.name, record.state, steps, used, record.model or "–"))
        notes += [f"{facts.name}: {problem.what}" for problem in ([record.error] if record.error else []) + facts.problems]
    lead = f"{len(rows)} instrument{'' if len(rows) == 1 else 's'}, store {library.store.uri}"
    columns = ("instrument", "state", "steps", "audio", "model")
    return _render(title=library.name, lead=lead, columns=columns, rows=rows, notes=notes)


def model_html(store: Store, card: ModelCard) -> str:
    """A model's facts, and its listening examples if a report has made them."""
    left, right = (f"{1000 * samples / card.sample_rate:.0f} ms" for samples in card.receptive_field)
    rows = [
        ("configuration", " + ".join(card.config)),
        ("audio", f"{card.sample_rate:,} Hz, {'mono' if card.channels == 1 else 'stereo'}; trained on {clock(card.seconds)}"),
        ("latents", f"{card.latents} of {card.latent_size}, one frame per {1000 * card.hop / card.sample_rate:.1f} ms"),
        ("receptive field", f"{left} back, {right} ahead"),
        *([] if card.levels is None else [("levels", card.levels.line)]),
        *((f"latent {latent.latent}", f"{name}: {latent.effect}") for name, latent in card.named_latents.items()),
        *([] if card.delay is None else [("delay in real time", f"{card.delay:,} samples")]),
        ("training", f"{card.step:,} of {card.steps:,} steps, phase {card.phase}"),
    ]
    if "model" in card.metrics:
        metrics = card.metrics["model"]
        rows.append(("verdict", str(card.verdict)))
        rows.append(("reconstruction error", f"{metrics.spectral_db:.1f} dB spectrum, {metrics.loudness_lu:.1f} LU loudness"))
    rows += [*card.credit.items(), ("engine", f"{card.engine.name} {card.engine.version}, {card.engine.licence}")]
    notes = [] if card.complete else ["Training was stopped before its budget was used up."]
    players: list[list[dict[str, Any]]] = []
    try:
        samples = stored_examples(store, card)
    except RaveDistError as error:
        notes.append(f"The samples cannot be read: {error.what}")
    else:
        if samples is None:
            notes.append("No samples yet: the report makes them.")
        else:
            players.append(model_players(card.name, samples))
    return _render(title=card.reference, lead="", columns=("", ""), rows=rows, players=players, notes=notes)


def conversion_html(store: Store, record: ConversionRecord) -> str:
    """A conversion's counts, and a few recordings before and after."""
    lead = f"{record.converted} converted ({clock(record.seconds)}), {record.skipped} skipped, {len(record.failed)} failed"
    found = [f"{item.source}: {problem.what}" for item in record.items_with_problems for problem in item.problems]
    notes = found[:_FAILURES_SHOWN]
    players = []
    for item in itertools.islice(_converted(store, record), SHOWN_CONVERSIONS):
        name = Path(item.source).name
        try:
            pair = (("Before", item.source, "the recording"), ("After", item.output, record.model))
            players.append([_preview(uri, title=title, caption=f"{name}, {of}", name=name) for title, uri, of in pair])
        except RaveDistError as error:
            notes.append(f"{name} cannot be played: {error.what}")
    if players:
        notes.append(f"At most {PREVIEW_SECONDS:.0f} s of each are played here; the files are complete.")
    return _render(title=record.model, lead=lead, players=players, notes=notes)


def _converted(store: Store, record: ConversionRecord) -> Any:
    """The journal's successful entries, in the store's order."""
    for entry in store.list(ConversionFolder.of(record.id).journal):
        item = ConversionItem.load(store, entry.key)
        if item.state != "failed":
            yield item


def _preview(uri: str, *, title: str, caption: str, name: str) -> dict[str, Any]:
    with local_copy(uri) as path, open_audio(path) as audio:
        rate = audio.sample_rate
        sound = _first(audio.blocks(), round(PREVIEW_SECONDS * rate))
    return make_player(sound, rate, title=title, caption=caption, name=name)


def _first(blocks: Any, samples: int) -> Audio:
    """The first samples of a stream. Output: [C, T]."""
    pieces: list[Audio] = []
    wanted = samples
    for block in blocks:
        pieces.append(block[:, :wanted])
        wanted -= pieces[-1].shape[1]
        if wanted <= 0:
            break
    return np.asarray(np.concatenate(pieces, axis=1), dtype=np.float32)


def _render(**values: Any) -> str:
    return template("notebook.html").render({"columns": (), "rows": (), "players": (), "notes": (), **values})
