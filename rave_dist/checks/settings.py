"""Checks of the manifest that measure nothing: configurations, options of arithmetic, budgets and initial weights."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rave_dist.checks.candidate import Candidate, Check
from rave_dist.checks.findings import Finding, error, warning
from rave_dist.initial_weights import joint_base_problem
from rave_dist.options import NEED_CUDA, ONE_WORKER_OPTIONS
from rave_dist.rave.config import configurations
from rave_dist.suggest import suggest
from rave_dist.training.preflight.model_facts import has_gpu


def unknown_configuration(candidate: Candidate) -> Iterator[Finding]:
    """Unknown configurations."""
    known = configurations()
    for name in candidate.spec.config:
        if name.removesuffix(".gin") not in known:
            yield error(f"RAVE has no configuration {name!r}", fix=suggest(name, known), where="config")


def missing_gpu(candidate: Candidate) -> Iterator[Finding]:
    """Options that require an NVIDIA GPU on a machine without one; a cluster's GPUs are not known here."""
    needed = sorted(NEED_CUDA & set(candidate.spec.compute))
    if needed and not os.environ.get("RAY_ADDRESS") and not has_gpu():
        names = " and ".join(needed)
        yield error(
            f"compute: {names} {'requires' if len(needed) == 1 else 'require'} an NVIDIA GPU, and this machine has none",
            fix=f"leave out {names}, or name a Ray cluster with GPUs in RAY_ADDRESS",
        )


def too_many_workers(candidate: Candidate) -> Iterator[Finding]:
    """More workers than windows in a batch, or options that need a single process."""
    workers, batch = candidate.spec.workers, candidate.step.batch
    if workers > batch:
        yield error(
            f"{workers} workers cannot divide a batch of {batch} window{'s' if batch > 1 else ''}",
            fix=f"set workers: {batch} or less, or batch: {workers} or more",
            where="workers",
        )
    options = sorted(ONE_WORKER_OPTIONS & set(candidate.spec.compute))
    if workers > 1 and options:
        names = " and ".join(options)
        yield error(
            f"compute: {names} cannot be combined with {workers} workers", fix=f"leave out {names}, or workers", where="workers"
        )


def early_stopping(candidate: Candidate) -> Iterator[Finding]:
    """Budgets whose steps and hours are upper limits."""
    if candidate.spec.budget.until is not None:
        yield warning("early stopping is on: steps and hours are upper limits")


def other_architecture(candidate: Candidate) -> Iterator[Finding]:
    """Instruments that cannot start from the joint base because their architecture differs."""
    problem = None if candidate.is_joint_base else joint_base_problem(candidate.library, candidate.spec.instrument)
    if problem is not None:
        yield error(problem.what, fix=problem.fix)


def transposed_base(candidate: Candidate) -> Iterator[Finding]:
    """Initial weights that were trained at another sample rate."""
    start, rate = candidate.initial_weights, candidate.spec.sample_rate
    if start is not None and start.sample_rate not in (None, rate):
        yield warning(f"its base, {start.origin}, was trained at {start.sample_rate} Hz: at {rate} Hz it will sound transposed")


def untrainable_joint_base(candidate: Candidate) -> Iterator[Finding]:
    """Errors of the joint base that an instrument starts from."""
    library, name, base = candidate.library, candidate.spec.instrument, candidate.joint_base
    if base is None or base.ok or joint_base_problem(library, name) is not None:
        return
    own = library.base(name)
    if own is not None and own.train:
        yield error(f"the joint base cannot be trained: {base.problems[0].what}", fix=base.problems[0].fix)


CHECKS: tuple[Check, ...] = (
    unknown_configuration,
    missing_gpu,
    too_many_workers,
    early_stopping,
    other_architecture,
    transposed_base,
)

AFTER_JOINT_BASE: tuple[Check, ...] = (untrainable_joint_base,)
"""Checks of an instrument that need the check of the joint base."""
