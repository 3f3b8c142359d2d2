"""What the store knows of each instrument of a library, gathered for its page; what is missing is said, not hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rave_dist.dataset.read import latest_manifest, load_manifest
from rave_dist.errors import MissingKeyError, ModelNotFoundError, RaveDistError
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetManifest, ModelCard, Problem, RunRecord
from rave_dist.registry.store import find
from rave_dist.reports.figures import Curve, Point
from rave_dist.storage.store import Store

_WORSE_VALIDATIONS, _WORSE = 3, 1.02


@dataclass(frozen=True)
class MetricsLog:
    """What a run measured on its way: losses by name, the distance of held-out audio, and that of audio it was trained on."""

    steps: int
    phase_1_steps: int
    window: int | None
    train: tuple[Curve, ...]
    held_out: Curve
    heard: Curve

    @property
    def over_fitted_since(self) -> int | None:
        """The step at which held-out audio was closest in the last phase, if it has been farther in three validations or more
        since, at the end by two percent at least, while training audio came closer; else None."""
        last = self.held_out.points[-1].step if self.held_out.points else 0
        first = self.phase_1_steps if last > self.phase_1_steps else 0
        heard = {point.step: point.value for point in self.heard.points}
        points = [p for p in self.held_out.points if p.step > first and p.step in heard]
        if not points:
            return None
        best, end = min(points, key=lambda p: p.value), points[-1]
        later = sum(p.step > best.step for p in points)
        over = later >= _WORSE_VALIDATIONS and end.value > _WORSE * best.value and heard[end.step] < heard[best.step]
        return best.step if over else None


@dataclass
class Facts:
    """All that the page says of one instrument; None where the store has nothing yet."""

    name: str
    record: RunRecord
    manifest: DatasetManifest | None = None
    card: ModelCard | None = None
    curves: MetricsLog | None = None
    problems: list[Problem] = field(default_factory=list)


def gather(store: Store, library: Library, records: Sequence[RunRecord]) -> list[Facts]:
    """The facts of every instrument of a library, in its order; one without a record is waiting."""
    by_name = {record.instrument: record for record in records}
    return [facts_of(store, library, name, by_name.get(name)) for name in library.instruments]


def facts_of(store: Store, library: Library, name: str, record: RunRecord | None) -> Facts:
    """The facts of one instrument, or of the library's own base."""
    facts = Facts(name, record or RunRecord(library=library.name, instrument=name, run_id="", dataset=""))
    record = facts.record
    try:
        if record.dataset:
            facts.manifest = load_manifest(store, name, record.dataset)
        else:
            facts.manifest = latest_manifest(store, name, library.name)
    except RaveDistError as error:
        if record.state == "done":
            facts.problems.append(Problem(what=f"the dataset cannot be read: {error.what}", fix=error.fix))
    if record.model:
        reference = record.model if "@" in record.model else f"{name}@{record.model}"
        try:
            facts.card = find(store, reference)
        except ModelNotFoundError as error:
            facts.problems.append(Problem(what=f"the model {reference} is not in the registry", fix=error.fix))
    if record.run_id:
        facts.curves = _read_curves(store, f"runs/{record.library}/{name}/{record.run_id}")
    return facts


def _read_curves(store: Store, run_key: str) -> MetricsLog | None:
    try:
        value = store.read_json(f"{run_key}/curves.json")
    except MissingKeyError:
        return None
    return parse_curves(value)


def parse_curves(value: dict[str, Any]) -> MetricsLog:
    """The curves of a run from its ``curves.json``: ``{train: [{step, phase, values: {name: value}}], validation: [{step,
    phase, value, training}], phase_1_steps, steps}``; values that are no numbers (a loss that overflowed) are left out."""
    series: dict[str, list[Point]] = {}
    for row in value.get("train", ()):
        for name, number in row["values"].items():
            if isinstance(number, int | float):
                series.setdefault(name, []).append(Point(int(row["step"]), float(number)))
    validations = {
        kind: tuple(
            Point(int(row["step"]), float(row[kind])) for row in value.get("validation", ()) if row.get(kind) is not None
        )
        for kind in ("value", "training")
    }
    return MetricsLog(
        steps=int(value["steps"]),
        phase_1_steps=int(value["phase_1_steps"]),
        window=value.get("window"),
        train=tuple(Curve(name, tuple(points)) for name, points in series.items()),
        held_out=Curve("held out", validations["value"], held_out=True),
        heard=Curve("training audio", validations["training"]),
    )
