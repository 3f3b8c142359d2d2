"""Arguments and results of the checks of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from rave_dist.errors import RaveDistError
from rave_dist.records import Record
from rave_dist.storage.store import Store

State = Literal["ok", "warning", "error", "skipped"]


class Diagnosis(Record):
    """One line of ``rave-dist doctor``.

    Attributes:
        name: the subject, in a word or two.
        state: ``error`` (does not work), ``warning`` (slow or unreliable), ``skipped`` (not requested) or ``ok``.
        what: the finding, in one sentence.
        fix: the smallest change that solves the problem; empty if there is none.
    """

    name: str
    state: State
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Request:
    """Options of an examination.

    Attributes:
        store: the store to examine, if any.
        start_ray: whether to start Ray, or to connect to the cluster that ``RAY_ADDRESS`` names.
    """

    store: Store | None = None
    start_ray: bool = True


Check = Callable[[Request], Iterable[Diagnosis]]


def ok(name: str, what: str) -> Diagnosis:
    """No problem."""
    return Diagnosis(name=name, state="ok", what=what)


def skipped(name: str, what: str) -> Diagnosis:
    """Not examined, with the reason."""
    return Diagnosis(name=name, state="skipped", what=what)


def warning(name: str, what: str, *, fix: str) -> Diagnosis:
    """It works, but slowly or unreliably."""
    return Diagnosis(name=name, state="warning", what=what, fix=fix)


def error(name: str, what: str, *, fix: str) -> Diagnosis:
    """It does not work."""
    return Diagnosis(name=name, state="error", what=what, fix=fix)


def from_error(name: str, problem: RaveDistError) -> Diagnosis:
    """An error of this package as a diagnosis."""
    return error(name, f"{problem.where}: {problem.what}" if problem.where else problem.what, fix=problem.fix)
