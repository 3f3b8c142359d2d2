"""What a check of the machine is asked and what it answers."""

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
        name: what was examined, in a word or two.
        state: an error keeps something from working, a warning makes it slow or uncertain, skipped was not asked for.
        what: what was found, in one sentence.
        fix: the smallest change that removes it; empty where nothing is wrong.
    """

    name: str
    state: State
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Request:
    """What to examine.

    Attributes:
        store: the store to try, if any.
        start_ray: whether to start Ray, or to connect to the cluster that ``RAY_ADDRESS`` names.
    """

    store: Store | None = None
    start_ray: bool = True


Check = Callable[[Request], Iterable[Diagnosis]]


def ok(name: str, what: str) -> Diagnosis:
    """Nothing is wrong."""
    return Diagnosis(name=name, state="ok", what=what)


def skipped(name: str, what: str) -> Diagnosis:
    """It was not examined, and why."""
    return Diagnosis(name=name, state="skipped", what=what)


def warning(name: str, what: str, *, fix: str) -> Diagnosis:
    """It works, but slowly or not surely."""
    return Diagnosis(name=name, state="warning", what=what, fix=fix)


def error(name: str, what: str, *, fix: str) -> Diagnosis:
    """It does not work."""
    return Diagnosis(name=name, state="error", what=what, fix=fix)


def from_error(name: str, problem: RaveDistError) -> Diagnosis:
    """An error of this package as a diagnosis."""
    return error(name, f"{problem.where}: {problem.what}" if problem.where else problem.what, fix=problem.fix)
