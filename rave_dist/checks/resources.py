"""Checks of memory and disk against the needs of a run, from dry runs and the measured facts of its model."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from rave_dist.checks.candidate import Candidate, Check, Plan
from rave_dist.checks.findings import Finding, error, warning
from rave_dist.rave.presets import accumulation_choices, smaller_batch
from rave_dist.storage.cache import cache_folder
from rave_dist.storage.probe import in_words
from rave_dist.storage.store import Store
from rave_dist.training.continuation import continued_schedule
from rave_dist.training.needs import step_bytes
from rave_dist.training.preflight.model_facts import ModelFacts
from rave_dist.training.schedule import first_schedule
from rave_dist.training.state.disk import run_bytes


def plan_run(candidate: Candidate, facts: ModelFacts) -> Plan:
    """Plans a run from the measured facts of its model.

    Raises:
        ConfigurationError: the budget is smaller than the steps of the run to resume.
    """
    spec, start = candidate.spec, candidate.initial_weights
    times = facts.step_times(candidate.step.of_one_worker().batch)
    resume_point = None if start is None else start.resume_point
    earlier = None if candidate.next_run is None else candidate.next_run.earlier
    done = 0
    if earlier is None:
        schedule = first_schedule(spec.budget, step_times=times, override=spec.override, resume_point=resume_point)
    else:
        schedule, done = continued_schedule(candidate.library.store, earlier, spec, step_times=times), earlier.step
    seconds = schedule.seconds(times, done=done)
    pcm_bytes = int(2 * spec.channels * spec.sample_rate * candidate.seconds)
    return Plan(
        parameters=facts.parameters,
        latents=facts.latent_size,
        hop=facts.hop,
        steps=schedule.steps,
        phase_1_steps=schedule.phase_1_steps,
        hours=spec.budget.hours if spec.budget.hours and not spec.budget.steps else round(seconds / 3600, 4),
        memory_bytes=_step_bytes(candidate, facts, _windows_at_once(candidate, facts)),
        disk_bytes=run_bytes(facts.parameters, keep=spec.checkpoint.keep) + (0 if candidate.is_joint_base else pcm_bytes),
        local_disk_bytes=pcm_bytes,
    )


def too_little_memory(candidate: Candidate) -> Iterator[Finding]:
    """A training step that does not fit this machine's memory; a cluster's memory is not known here."""
    spec, facts, batch = candidate.spec, candidate.facts, candidate.step.batch
    memory = psutil.virtual_memory().total
    if facts is None or os.environ.get("RAY_ADDRESS"):
        return
    needed = _step_bytes(candidate, facts, batch)
    if needed <= memory:
        return
    needs = f"a training step needs {in_words(needed)} of memory, this machine has {in_words(memory)}"
    at_once = _windows_at_once(candidate, facts)
    if at_once < batch:
        yield warning(f"{needs}: it will be computed in {batch // at_once} parts of {at_once} windows")
        return
    fitting = next((size for size in range(batch, 0, -1) if _step_bytes(candidate, facts, size) <= memory), 0)
    yield error(needs, fix=smaller_batch(spec, fitting))


def _windows_at_once(candidate: Candidate, facts: ModelFacts) -> int:
    """The number of windows computed at once: all, or with ``batch: auto`` as many as fit this machine's memory."""
    batch = candidate.step.batch
    if candidate.spec.batch != "auto" or os.environ.get("RAY_ADDRESS"):
        return batch
    memory = psutil.virtual_memory().total
    sizes = (batch // parts for parts in accumulation_choices(batch))
    return next((size for size in sizes if _step_bytes(candidate, facts, size) <= memory), batch)


def _step_bytes(candidate: Candidate, facts: ModelFacts, windows: int) -> int:
    """Memory of a step of some windows in all workers; a dry run has measured that of all windows at once."""
    workers = candidate.spec.workers
    tested = candidate.tested if windows == candidate.step.batch else None
    return workers * step_bytes(facts, tested, -(-windows // workers))


def too_little_disk(candidate: Candidate) -> Iterator[Finding]:
    """A run that needs more disk space than the store has."""
    needed = 0 if candidate.plan is None else candidate.plan.disk_bytes
    if candidate.free_bytes is not None and needed > candidate.free_bytes:
        yield error(
            f"it needs about {in_words(needed)} in the store, but {in_words(max(candidate.free_bytes, 0))} are free",
            fix="free space on that disk, or move the store to another",
            where=candidate.library.store.uri,
        )


def too_little_local_disk(candidate: Candidate) -> Iterator[Finding]:
    """A copy of the dataset that this machine's disk may not have room for; the disks of a cluster are not known here."""
    folder = cache_folder()
    if candidate.plan is None or folder is None or os.environ.get("RAY_ADDRESS"):
        return
    needed, free = candidate.plan.local_disk_bytes, Store(str(folder)).free_bytes()
    if free is not None and needed > free:
        yield warning(
            f"training copies the dataset to this machine's disk, {in_words(needed)}, but {in_words(free)} are free",
            fix="free space on that disk, or set RAVE_DIST_CACHE to a folder on a larger one",
            where=str(folder),
        )


def needs_whole_batch(candidate: Candidate) -> Iterator[Finding]:
    """Several workers for a model with statistics of the whole batch."""
    facts, workers = candidate.facts, candidate.spec.workers
    if facts is not None and workers > 1 and facts.whole_batch:
        yield error(
            f"{workers} workers cannot train this model: {facts.whole_batch} requires a single one",
            fix="leave out workers, or use another configuration, such as v2",
            where="workers",
        )


CHECKS: tuple[Check, ...] = (too_little_memory, too_little_disk, too_little_local_disk, needs_whole_batch)
