"""The check of a library: manifest and recordings of all instruments first, then the facts of their models.

Models are measured in separate processes, once for each configuration and machine; see
`rave_dist.training.preflight.model_facts`. An instrument with errors in its manifest or recordings is not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rave_dist.audio.io.sources import Listing, find_sources
from rave_dist.checks import history, recordings, resources, settings
from rave_dist.checks.candidate import Candidate, Check, Recording
from rave_dist.checks.findings import Finding, from_error
from rave_dist.checks.results import InstrumentCheck, LibraryCheck
from rave_dist.errors import AudioError, ConfigurationError, DatasetError, RaveDistError, StoreError
from rave_dist.initial_weights import find_initial_weights
from rave_dist.library.manifest import Library
from rave_dist.on_end import missing_program
from rave_dist.progress import SILENT, Progress
from rave_dist.records import Problem
from rave_dist.storage.parallel import at_once
from rave_dist.training.preflight.dry_run_results import find_results
from rave_dist.training.preflight.model_facts import measure_model

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights

BEFORE_MEASURING: tuple[Check, ...] = (*recordings.CHECKS, *settings.CHECKS)
"""Checks of manifest and recordings."""

AFTER_MEASURING: tuple[Check, ...] = (*history.CHECKS, *resources.CHECKS)
"""Checks of earlier runs, and those that use the facts of the model."""


def check_library(library: Library, only: Sequence[str] | None = None, *, progress: Progress = SILENT) -> LibraryCheck:
    """Checks the named instruments, or all, and their joint base.

    Args:
        library: the library.
        only: names of instruments.
        progress: receives the stages and the number of instruments that were checked.

    Raises:
        LibraryError: the manifest has no such instrument.
        StoreError: the store cannot be written.
    """
    names = library.select(list(only) if only else None)
    library.store.check_writable()
    progress.stage("checking manifest and recordings")
    listings = dict(zip(names, at_once(lambda name: _list(library, name), names), strict=True))
    sources = {
        source.place: source for listing in listings.values() if isinstance(listing, Listing) for source in listing.sources
    }
    opened = dict(zip(sources, recordings.open_recordings(list(sources.values())), strict=True))
    starts = dict(zip(names, at_once(lambda name: _initial_weights(library, name), names), strict=True))
    examined = {name: _examine(library, name, listings[name], starts[name], opened) for name in names}
    at_once(lambda one: _plan_next_run(*one), examined.values())
    candidates = [candidate for candidate, _ in examined.values()]
    dry_runs = find_results(library.store, [candidate.spec for candidate in candidates], None)
    for candidate in candidates:
        candidate.tested = dry_runs.get(candidate.spec.worker_step_id)
    progress.stage("checking models")
    free = library.store.free_bytes()
    base = _check_joint_base(library, {name: candidate for name, (candidate, _) in examined.items()}, free)
    checked = [] if base is None else [base]
    for done, name in enumerate(names):
        progress.advance(done, len(names), "instruments")
        candidate, found = examined[name]
        candidate.joint_base, candidate.free_bytes = base, _left(free, checked)
        checked.append(_complete(candidate, found))
    progress.advance(len(names), len(names), "instruments")
    return LibraryCheck(tuple(checked[-len(names) :]), base, tuple(_warnings(library)))


def _warnings(library: Library) -> Iterator[Problem]:
    """What concerns the library rather than an instrument."""
    if program := missing_program(library):
        what = f"on_end: this machine has no program {program!r} that can be run"
        yield Problem(what=what, fix="correct its path, which is relative to the manifest, and make it executable")


def _left(free: int | None, checked: Sequence[InstrumentCheck]) -> int | None:
    """The free space after the runs before."""
    return None if free is None else free - sum(check.disk_bytes or 0 for check in checked)


def _list(library: Library, name: str) -> Listing | RaveDistError:
    """An instrument's recordings, or why they cannot be listed."""
    try:
        return find_sources(library.sources(name))
    except (AudioError, StoreError) as error:
        return error


def _initial_weights(library: Library, name: str) -> InitialWeights | RaveDistError | None:
    """An instrument's initial weights, or why they are not available."""
    try:
        return find_initial_weights(library, name)
    except RaveDistError as error:
        return error


def _examine(
    library: Library,
    name: str,
    listing: Listing | RaveDistError,
    start: InitialWeights | RaveDistError | None,
    opened: Mapping[str, Recording],
) -> tuple[Candidate, list[Finding]]:
    """An instrument, and its findings before its model is measured."""
    candidate = Candidate(library=library, spec=library.training_spec(name, dataset=""))
    found: list[Finding] = []
    if isinstance(listing, Listing):
        candidate.passed_over, candidate.notes = listing.passed_over, listing.notes
        candidate.recordings = [opened[source.place] for source in listing.sources]
    else:
        found.append(from_error(listing))
    if isinstance(start, RaveDistError):
        found.append(from_error(start))
    else:
        candidate.initial_weights = start
    return candidate, found + _run(BEFORE_MEASURING, candidate)


def _plan_next_run(candidate: Candidate, found: list[Finding]) -> None:
    """Plans the run of a candidate without errors in view of its earlier ones.

    Raises:
        StoreError: the store cannot be read.
    """
    if not _has_error(found):
        try:
            candidate.next_run = history.plan_from_history(candidate)
        except ConfigurationError as error:
            found.append(from_error(error))


def _has_error(found: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in found)


def _check_joint_base(library: Library, candidates: Mapping[str, Candidate], free: int | None) -> InstrumentCheck | None:
    """The check of the joint base, trained on the recordings of the matching instruments."""
    spec = library.base_spec(dataset="")
    if spec is None:
        return None
    form = (spec.sample_rate, spec.channels)
    matching = [c for c in candidates.values() if (c.spec.sample_rate, c.spec.channels) == form]
    files = {recording.source.uri: recording for candidate in matching for recording in candidate.recordings}
    base = Candidate(library=library, spec=spec, recordings=tuple(files.values()), is_joint_base=True, free_bytes=free)
    return _complete(base, _run((recordings.too_little_audio, *settings.CHECKS), base))


def _complete(candidate: Candidate, found: Sequence[Finding]) -> InstrumentCheck:
    """Measures the model of a candidate without errors and runs the checks that need its facts."""
    findings = [*found, *_run(settings.AFTER_JOINT_BASE, candidate)]
    if not _has_error(findings):
        try:
            candidate.facts = measure_model(candidate.spec, candidate.initial_weights)
            candidate.plan = resources.plan_run(candidate, candidate.facts)
        except ConfigurationError as error:
            findings.append(from_error(error))
    findings += _run(AFTER_MEASURING, candidate)
    train, held_out = _division(candidate)
    return InstrumentCheck(
        name=candidate.spec.instrument,
        findings=tuple(findings),
        sources=len(candidate.recordings),
        passed_over=candidate.passed_over,
        seconds=round(candidate.seconds, 3),
        windows=int(candidate.seconds * candidate.spec.sample_rate) // candidate.step.window,
        train_seconds=round(train, 3),
        validation_seconds=round(held_out, 3),
        window=candidate.step.window,
        batch=candidate.step.batch,
        **({} if candidate.plan is None else asdict(candidate.plan)),
    )


def _division(candidate: Candidate) -> tuple[float, float]:
    """Seconds of training audio and of held-out audio; None if there is too little audio."""
    try:
        division = candidate.division
    except DatasetError:
        return 0.0, 0.0
    return candidate.seconds_of(division.train), candidate.seconds_of(division.validation)


def _run(checks: Iterable[Check], candidate: Candidate) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        try:
            found.extend(check(candidate))
        except RaveDistError as error:
            found.append(from_error(error))
    return found
