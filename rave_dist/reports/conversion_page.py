"""The page of a conversion: what an archive received, in one HTML file with its sounds, which makes no network requests.

One model is a page of pairs, recording and result; several models of the same recordings are a matrix, a row per recording and
a column per model. The page is written in one pass over the items of each model, and its size is bounded: long lists refer to
the journal's table, and sounds for which there is no room are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rave_dist.identity import content_id
from rave_dist.pages.render import render as rendered
from rave_dist.records import ConversionFolder, ConversionItem, ConversionRecord, ModelCard, Problem, now, remarks
from rave_dist.reports.carried import Carried
from rave_dist.reports.conversion_sample import SAMPLED, Budget, Sample, row, sampled_sources
from rave_dist.reports.excerpts import EXCERPT_SECONDS
from rave_dist.reports.page import template
from rave_dist.storage.schemes import normalise
from rave_dist.storage.store import Store

_FOLDER = Path(__file__).parent
_SOUND_BYTES = 16 << 20  # of a page, encoded; the rest of it is far below 4 MB
_ROWS = 300  # of a list; the table has all of them
_LISTS = {
    "failed": "Failed",
    "salvaged": "Damaged, converted as far as they can be read",
    "silent": "Silent results of recordings that are not",
    "clipped": "Clipped results of recordings that are not",
    "other_format": "WAV in the place of FLAC",
}


@dataclass(frozen=True)
class ConvertedWith:
    """One model's conversion.

    Attributes:
        record: its outcome.
        card: the model.
        items: the journal's entries, or the rows of its table; iterated once.
        output: where the results are.
    """

    record: ConversionRecord
    card: ModelCard
    items: Iterable[ConversionItem]
    output: Store


def write_conversion_page(store: Store, conversions: Sequence[ConvertedWith], target: Path | str) -> str:
    """Writes the page of one or several conversions of the same sources.

    A sample that cannot be read, because its source is away or its result was moved, is named on the page.

    Args:
        store: with the journals and tables, which the page names.
        conversions: one per model, at least one.
        target: the file, a path or an address.

    Returns:
        Its address.

    Raises:
        StoreError: the journal cannot be read, or the page cannot be written.
    """
    address = normalise(str(target))
    folder, _, name = address.rpartition("/")
    Store(folder or "/").write_bytes(name, render(store, conversions).encode())
    return address


def render(store: Store, conversions: Sequence[ConvertedWith]) -> str:
    """The page's HTML. User data is escaped; a content security policy forbids all requests and other scripts."""
    seed = content_id(sorted(each.record.id for each in conversions))
    samples = [Sample(seed) for _ in conversions]
    models = [_model(store, each, sample) for each, sample in zip(conversions, samples, strict=True)]
    rows, left_out = _rows(conversions, samples)
    heading = _title(conversions)
    return rendered(
        template("conversion.html"),
        _FOLDER,
        styles=("page.css", "conversion.css"),
        script="conversion.js",
        title=f"{heading} · rave-dist",
        heading=heading,
        written=now(),
        store=store.uri,
        models=models,
        rows=rows,
        left_out=left_out,
        excerpt_seconds=EXCERPT_SECONDS,
        most_rows=_ROWS,
        problems=_problems(conversions),
        passed_over=conversions[0].record.passed_over,
        notes=remarks([each.record for each in conversions]),
        document=_document(models, rows),
    )


def _title(conversions: Sequence[ConvertedWith]) -> str:
    names = [each.card.name for each in conversions]
    return f"Conversion with {names[0]}" if len(names) == 1 else f"Conversion with {len(names)} models"


def _model(store: Store, each: ConvertedWith, sample: Sample) -> dict[str, Any]:
    """The template's variables of one model; its items are offered to the sample."""
    states: Counter[str] = Counter()
    carried = Carried()
    seconds = clipped_seconds = 0.0
    out_of_depth = 0
    for item in each.items:
        states[item.state] += 1
        seconds += item.seconds
        clipped_seconds += item.clipped_seconds
        out_of_depth += item.is_out_of_depth
        sample.add(item)
        carried.add(item)
    record, folder = each.record, ConversionFolder.of(each.record.id)
    return {
        "card": each.card,
        "record": record,
        "parameters": _parameters(record),
        "output": each.output.uri,
        "table": store.address(folder.table),
        "citation": _citation(each.card),
        "kept": list(carried.kept),
        "left": list(carried.left),
        "totals": {
            "files": states.total(),
            "seconds": round(seconds, 3),
            "with_output": states["converted"] + states["salvaged"],
            "converted": record.converted,
            "skipped": record.skipped,
            "failed": states["failed"],
            "salvaged": states["salvaged"],
            "silent": len(record.silent),
            "clipped": len(record.clipped),
            "clipped_seconds": round(clipped_seconds, 3),
            "preserved": record.preserved.model_dump(),
            "out_of_depth": out_of_depth,
        },
    }


def _rows(conversions: Sequence[ConvertedWith], samples: Sequence[Sample]) -> tuple[list[dict[str, Any]], int]:
    """The rows of sounds, and how many sampled sources the page has no room for."""
    budget = Budget(_SOUND_BYTES)
    sources = sampled_sources(samples)
    names = [each.card.name for each in conversions]
    rows: list[dict[str, Any]] = []
    for source in sources:
        found = row(source, [sample.items.get(source) for sample in samples], names, budget)
        if found is None:
            break
        rows.append(found)
    return rows, len(sources) - len(rows)


def _problems(conversions: Sequence[ConvertedWith]) -> list[dict[str, Any]]:
    """The lists of items with problems: title, the rows shown, and how many there are."""
    lists = []
    for name, title in _LISTS.items():
        found = [(each.card.name, item) for each in conversions for item in getattr(each.record, name)]
        if found:
            shown = [(model, item.source, _problem(name, item)) for model, item in found[:_ROWS]]
            lists.append({"title": title, "name": name, "rows": shown, "count": len(found)})
    return lists


def _problem(name: str, item: ConversionItem) -> Problem:
    found = {"silent": item.silent, "clipped": item.clipped}.get(name)
    what = item.other_format if name == "other_format" else item.reason
    return found or Problem(what=what or item.state, fix="" if name == "other_format" else item.fix)


def _parameters(record: ConversionRecord) -> dict[str, str]:
    """The parameters in words."""
    given = record.parameters
    return {
        "format": given.format.upper(),
        "sample rate": f"{given.sample_rate} Hz" if given.sample_rate else "that of each recording",
        "channels": str(given.channels) if given.channels else "those of each recording",
        "seed": str(given.seed),
        "latent noise": f"{given.latent_noise:g}",
        "changes": ", ".join(f"{name} {value}" for name, value in given.changes.items()) or "none",
        "damaged files": "the readable part is converted" if given.salvage else "not converted",
    }


def _citation(card: ModelCard) -> str:
    """A line to cite results by: the model, its recordings, the engine and both licences."""
    credit = ", ".join(f"{key}: {value}" for key, value in card.credit.items())
    recordings = f"trained on recordings ({credit})" if credit else "whose library names no attribution"
    engine = f"{card.engine.name} {card.engine.version}, {card.engine.licence}"
    return f"Converted by rave-dist with the model {card.reference}, {recordings}; engine {engine}."


def _document(models: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The page's facts as JSON, for programs."""
    numbers = ("title", "reason", "seconds", "lufs", "gain_db")
    return {
        "sampled": SAMPLED,
        "models": [
            {
                "id": m["record"].id,
                "model": m["record"].model,
                "output": m["output"],
                "table": m["table"],
                "totals": m["totals"],
            }
            for m in models
        ],
        "rows": [
            {
                "source": each["source"],
                "start": each["start"],
                "cells": [{name: cell[name] for name in numbers if name in cell} for cell in each["cells"]],
            }
            for each in rows
        ],
    }
