"""The page of a library: one HTML file with embedded pictures and sounds, which makes no network requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rave_dist.audio.io.sources import MISSING_FIX
from rave_dist.audio.metrics import spectral
from rave_dist.errors import RaveDistError
from rave_dist.library.manifest import Library
from rave_dist.pages.render import environment
from rave_dist.pages.render import render as rendered
from rave_dist.records import Problem, RunRecord, now
from rave_dist.reports import listening
from rave_dist.reports.facts import Facts, TrainingCurves, facts_of, gather
from rave_dist.reports.figures import Curve, chart
from rave_dist.reports.players import make_player
from rave_dist.storage.store import Store
from rave_dist.time_left import time_left

_FOLDER = Path(__file__).parent
_DEFAULT_WINDOW = 65536
_FAINT_DB = 15.0
_DISTANCE = "spectral_distance"
_OTHERS = ("regularization", "feature_matching", "adversarial", "loss_dis")


def write_report(store: Store, library: Library, records: Sequence[RunRecord], *, base: RunRecord | None = None) -> str:
    """Writes ``report/<library>/index.html`` from the present contents of the store, and a copy, ``report/index.html``.

    Instruments without a record are waiting; ``base`` is the record of the library's joint base, if it has one. Files that
    cannot be read (a model, a dataset) are reported on the page.

    Returns:
        The page's key.

    Raises:
        StoreError: the store cannot be written.
    """
    facts = gather(store, library, records)
    views = [_view(item, sound) for item, sound in zip(facts, _listen(store, facts), strict=True)]
    base_view = _view(facts_of(store, library, base.instrument, base), None) if base else None
    page = render(library.name, store, views, base=base_view)
    key = f"report/{library.name}/index.html"
    store.write_bytes(key, page.encode())
    store.write_bytes("report/index.html", page.encode())
    return key


def render(library: str, store: Store, instruments: Sequence[dict[str, Any]], *, base: dict[str, Any] | None = None) -> str:
    """The page's HTML, with the base before the instruments that start from it.

    User data is escaped; a content security policy forbids all requests and other scripts.
    """
    return rendered(
        template("page.html"),
        _FOLDER,
        styles=("page.css",),
        script="page.js",
        title=f"{library} · rave-dist",
        library=library,
        store=store.uri,
        written=now(),
        instruments=instruments,
        base=base,
        document={
            "library": library,
            "instruments": [item["document"] for item in instruments],
            "base": base and base["document"],
        },
        states=[(s, sum(i["record"].state == s for i in instruments)) for s in ("done", "running", "waiting", "failed")],
    )


def template(name: str) -> jinja2.Template:
    """An HTML template of this folder; it escapes all values and has the filters clock, number, size and percent."""
    found = environment(_FOLDER)
    found.filters.update(clock=clock, number=number, size=size, percent=percent)
    return found.get_template(name)


def _listen(store: Store, facts: Sequence[Facts]) -> list[listening.Examples | None]:
    """The sounds of every published model, each with the next instrument of the library as its transfer source."""
    excerpts: dict[str, listening.Excerpt | None] = {}

    def excerpt(item: Facts) -> listening.Excerpt | None:
        if item.name not in excerpts:
            excerpts[item.name] = None
            try:
                excerpts[item.name] = _excerpt(store, item)
            except RaveDistError as error:
                item.problems.append(_problem("no excerpt of its recordings", error))
        return excerpts[item.name]

    def transfer_source(index: int, sample_rate: int) -> listening.TransferSource:
        for item in (*facts[index + 1 :], *facts[:index]):
            sound = excerpt(item)
            if sound is not None and item.manifest is not None:
                return listening.TransferSource(item.name, f"{item.name}/{item.manifest.id}", sound)
        return listening.synthetic_call(sample_rate)

    sounds: list[listening.Examples | None] = []
    for index, item in enumerate(facts):
        own = excerpt(item) if item.card else None
        sounds.append(None)
        if item.card is None or own is None:
            continue
        try:
            sounds[-1] = listening.examples(
                store, item.card, instrument=own, transfer_source=transfer_source(index, item.card.sample_rate)
            )
        except RaveDistError as error:
            item.problems.append(_problem("no samples of this model", error))
    return sounds


def _excerpt(store: Store, item: Facts) -> listening.Excerpt | None:
    if item.card is not None:
        stored = listening.stored_excerpt(store, item.card)
        if stored is not None:
            return stored
    if item.manifest is None:
        return None
    window = item.curves.window if item.curves else _DEFAULT_WINDOW
    return listening.excerpt(store, item.manifest, window=window)


def _problem(what: str, error: RaveDistError) -> Problem:
    problem = Problem.of(error)
    return Problem(what=f"{what}: {problem.what}", fix=problem.fix)


def _view(facts: Facts, sounds: listening.Examples | None) -> dict[str, Any]:
    """The template's variables of one instrument."""
    record, manifest, card = facts.record, facts.manifest, facts.card
    players = model_players(facts.name, sounds) if sounds else []
    first, last = record.validation.first, record.validation.last
    credit = (card.credit if card else None) or (manifest.credit if manifest else {})
    return {
        "name": facts.name,
        "anchor": "instrument-" + re.sub(r"[^A-Za-z0-9_-]", "-", facts.name),
        "record": record,
        "manifest": manifest,
        "card": card,
        "credit": credit,
        "problems": [
            *([record.error] if record.error else []),
            *_notes_since(facts),
            *facts.problems,
            *_training_notes(facts),
            *_level_notes(players),
        ],
        "charts": _charts(facts.name, facts.curves, record) if facts.curves else [],
        "players": players,
        "time_left": time_left(record) if record.activity == "training" else None,
        "improvement": (last - first) / first if first and last is not None else None,
        "warnings": [(Path(s.source).name, w) for s in manifest.sources for w in s.warnings] if manifest else [],
        "rejected": sorted(manifest.rejected, key=lambda r: -r.seconds) if manifest else [],
        "passed_over": manifest.passed_over if manifest else (),
        "peak": max((s.peak for s in manifest.sources), default=0.0) if manifest else None,
        "document": {
            "name": facts.name,
            "state": record.state,
            "activity": record.activity,
            "phase": record.phase,
            "step": record.step,
            "steps": record.steps,
            "validation": record.validation.to_json(),
            "model": record.model,
            "seconds": record.seconds,
            "expected_seconds": record.expected_seconds,
            "used_seconds": manifest.used_seconds if manifest else None,
            "rejected_seconds": sum(r.seconds for r in manifest.rejected) if manifest else None,
            "passed_over": [entry.to_json() for entry in manifest.passed_over] if manifest else [],
            "outdated": record.outdated,
            "error": record.error.to_json() if record.error else None,
            "samples": {player["role"]: player["numbers"] for player in players},
        },
    }


def _notes_since(facts: Facts) -> list[Problem]:
    """What has changed since the run, recordings that are missing, and remarks about the sources."""
    fix = "rave-dist run trains it with the present manifest and recordings"
    notes = [Problem(what=text, fix=fix) for text in facts.record.outdated]
    for entry in facts.manifest.passed_over if facts.manifest else ():
        if entry.missing:
            others = f" and {entry.count - 1} more" if entry.count > 1 else ""
            notes.append(Problem(what=f"{entry.names[0]}{others}: not used, {entry.reason}", fix=MISSING_FIX))
    return notes + [Problem(what=note) for note in (facts.manifest.notes if facts.manifest else ())]


def _level_notes(players: Sequence[dict[str, Any]]) -> list[Problem]:
    """Warnings about a model that has hardly learnt."""
    levels = {player["role"]: player["numbers"]["level_dbfs"] for player in players}
    if not levels or levels["original"] - levels["reconstruction"] < _FAINT_DB:
        return []
    difference = levels["original"] - levels["reconstruction"]
    return [Problem(what=f"the reconstruction is {difference:.0f} dB quieter than the original", fix="train for longer")]


def _training_notes(facts: Facts) -> list[Problem]:
    """Rollbacks to a lower learning rate, and overfitting."""
    notes = [
        Problem(what=f"{rollback.what}; it was resumed from its last checkpoint with the learning rate times {rollback.rate:g}")
        for rollback in facts.record.rollbacks
    ]
    since = facts.curves.overfitted_since if facts.curves else None
    if since is not None:
        what = f"overfitted since step {number(since)}: only the distance of training audio has fallen since"
        notes.append(
            Problem(what=f"{what}; the weights are chosen by held-out audio", fix="add recordings or reduce the budget")
        )
    return notes


def model_players(name: str, samples: listening.Examples) -> list[dict[str, Any]]:
    """A model's sounds as the template plays them: original, reconstruction, transfer."""
    sources = ", ".join(samples.sources[:3]) + (f" and {len(samples.sources) - 3} more" if len(samples.sources) > 3 else "")
    captions = {
        "original": ("Original", f"{'held out of training' if samples.held_out else 'training material'}: {sources}"),
        "reconstruction": ("Reconstruction", "the original through the model"),
        "transfer": ("Transfer", f"{samples.transfer_source}, played through {name}"),
    }
    original = samples.sounds["original"].mean(axis=0)
    players = []
    for role, (title, caption) in captions.items():
        sound = samples.sounds[role]
        player = make_player(sound, samples.sample_rate, title=title, caption=caption, name=name)
        if role == "reconstruction":
            distance = spectral.spectral_distance_db(original, sound.mean(axis=0))
            player["numbers"]["spectral_distance_db"] = round(distance, 1)
        players.append({"role": role, **player})
    return players


def _charts(name: str, curves: TrainingCurves, record: RunRecord) -> list[dict[str, Any]]:
    """The spectral distance, then the other losses."""
    distances = [c for c in curves.losses if _DISTANCE in c.name]
    others = [c for name in _OTHERS for c in curves.losses if c.name == name]
    steps, boundary = max(curves.steps, record.step), curves.phase_1_steps
    charts = [
        {
            "title": "Spectral distance",
            "note": "distance of output and input; lower is better",
            "alt": _describe(name, [*distances, curves.training, curves.held_out], boundary),
            "svg": Markup(
                chart(
                    [*_named(distances), curves.training, curves.held_out],
                    steps=steps,
                    phase_1_steps=boundary,
                    unit="distance",
                    log=True,
                )
            ),
        }
    ]
    if any(curve.points for curve in others):
        charts.append(
            {
                "title": "Other losses",
                "note": "the other terms of the loss in each phase",
                "alt": _describe(name, others, boundary),
                "svg": Markup(chart(_named(others), steps=steps, phase_1_steps=boundary, unit="loss")),
            }
        )
    return charts


def _named(curves: Sequence[Curve]) -> list[Curve]:
    return [Curve(curve.name.replace("_", " "), curve.points, held_out=curve.held_out) for curve in curves]


def _describe(name: str, curves: Sequence[Curve], boundary: int) -> str:
    parts = [
        f"{c.name.replace('_', ' ')} from {c.points[0].value:.3g} at step {c.points[0].step} to {c.points[-1].value:.3g} "
        f"at step {c.points[-1].step}"
        for c in curves
        if c.points
    ]
    return f"Curves of {name}: {'; '.join(parts) or 'nothing measured yet'}. Phase 2 begins at step {boundary}."


def clock(seconds: float | None) -> str:
    """A duration for people: 42.5 s, 3 min 49 s, 2 h 05 min; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def number(value: float | None) -> str:
    """Three significant digits, whole numbers with thin spaces; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")


def percent(value: float) -> str:
    """A change as a signed percentage, with a true minus."""
    return f"{100 * value:+.0f} %".replace("-", "−")


def size(num_bytes: float) -> str:
    """Bytes as kB or MB."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
