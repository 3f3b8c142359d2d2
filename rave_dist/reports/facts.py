"""The stored facts of each instrument of a library, for its page; missing ones are reported as problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rave_dist.dataset.read import latest_manifest, load_manifest
from rave_dist.errors import MissingKeyError, ModelNotFoundError, RaveDistError
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetManifest, ModelCard, Problem, RunFolder, RunMetrics, RunRecord
from rave_dist.registry.store import find
from rave_dist.reports.figures import Curve, Point
from rave_dist.storage.store import Store

_WORSE_VALIDATIONS, _WORSE = 3, 1.02


@dataclass(frozen=True)
class TrainingCurves:
    """A run's measurements: losses by name, and the distances from held-out and from training audio."""

    steps: int
    phase_1_steps: int
    window: int
    losses: tuple[Curve, ...]
    held_out: Curve
    training: Curve

    @property
    def overfitted_since(self) -> int | None:
        """The step of the lowest held-out distance of the last phase, if the run has overfitted since; otherwise None.

        A run has overfitted if at least three later validations are worse, the last one by at least two percent, while the
        distance of training audio has fallen.
        """
        last = self.held_out.points[-1].step if self.held_out.points else 0
        first = self.phase_1_steps if last > self.phase_1_steps else 0
        training = {point.step: point.value for point in self.training.points}
        points = [p for p in self.held_out.points if p.step > first and p.step in training]
        if not points:
            return None
        best, end = min(points, key=lambda p: p.value), points[-1]
        later = sum(p.step > best.step for p in points)
        over = later >= _WORSE_VALIDATIONS and end.value > _WORSE * best.value and training[end.step] < training[best.step]
        return best.step if over else None


@dataclass
class Facts:
    """The page's facts of one instrument; None where the store has none yet."""

    name: str
    record: RunRecord
    manifest: DatasetManifest | None = None
    card: ModelCard | None = None
    curves: TrainingCurves | None = None
    problems: list[Problem] = field(default_factory=list)


def gather(store: Store, library: Library, records: Sequence[RunRecord]) -> list[Facts]:
    """The facts of every instrument of a library, in its order; an instrument without a record is waiting."""
    by_name = {record.instrument: record for record in records}
    return [facts_of(store, library, name, by_name.get(name)) for name in library.instruments]


def facts_of(store: Store, library: Library, name: str, record: RunRecord | None) -> Facts:
    """The facts of one instrument, or of the library's joint base."""
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
        facts.curves = _read_curves(store, RunFolder.of(record.library, name, record.run_id))
    return facts


def _read_curves(store: Store, run: RunFolder) -> TrainingCurves | None:
    try:
        return curves_of(RunMetrics.load(store, run.metrics))
    except MissingKeyError:
        return None


def curves_of(metrics: RunMetrics) -> TrainingCurves:
    """The curves of a run's metrics, without NaN and infinite values."""
    losses: dict[str, list[Point]] = {}
    for row in metrics.train:
        for name, value in row.values.items():
            if value is not None:
                losses.setdefault(name, []).append(Point(row.step, value))
    rows = metrics.validation
    return TrainingCurves(
        steps=metrics.steps,
        phase_1_steps=metrics.phase_1_steps,
        window=metrics.window,
        losses=tuple(Curve(name, tuple(points)) for name, points in losses.items()),
        held_out=Curve("held out", tuple(Point(r.step, r.held_out) for r in rows if r.held_out is not None), held_out=True),
        training=Curve("training audio", tuple(Point(r.step, r.training) for r in rows if r.training is not None)),
    )
