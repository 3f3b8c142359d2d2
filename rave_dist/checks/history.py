"""Earlier runs of an instrument: whether its next run continues one of them."""

from __future__ import annotations

from collections.abc import Iterator

from rave_dist.checks.candidate import Candidate, Check
from rave_dist.checks.findings import Finding, warning
from rave_dist.checks.outdated import changed_recordings
from rave_dist.dataset.read import latest_manifest
from rave_dist.errors import DatasetError
from rave_dist.training.continuation import PlannedRun, plan_continuation


def plan_from_history(candidate: Candidate) -> PlannedRun | None:
    """The next run of an instrument in view of its earlier ones; None if it has no dataset yet, or starts from a joint base.

    Raises:
        StoreError: the store cannot be read.
    """
    library, name = candidate.library, candidate.spec.instrument
    base = library.base(name) if not candidate.is_joint_base else None
    if candidate.is_joint_base or (base is not None and base.train):
        return None
    try:
        dataset = latest_manifest(library.store, name, library.name)
    except DatasetError:
        return None
    changed = changed_recordings(dataset, [recording.source for recording in candidate.recordings])
    initial = candidate.initial_weights
    spec = library.training_spec(name, dataset="" if changed else dataset.id, base=initial.id if initial else None)
    return plan_continuation(library.store, spec)


def earlier_runs(candidate: Candidate) -> Iterator[Finding]:
    """The run that the next one continues, or why it starts at step 0 although there are earlier runs."""
    if candidate.next_run is not None and candidate.next_run.note:
        yield warning(candidate.next_run.note)


CHECKS: tuple[Check, ...] = (earlier_runs,)
