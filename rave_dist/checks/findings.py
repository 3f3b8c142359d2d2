"""Findings of checks: severity, what is wrong, where, and the smallest fix."""

from __future__ import annotations

from typing import Literal

from rave_dist.errors import RaveDistError
from rave_dist.records import Problem, Record

Severity = Literal["error", "warning"]


class Finding(Record):
    """One result of a check.

    Attributes:
        severity: an error prevents training, a warning does not.
        what: the finding, in one sentence.
        fix: the smallest change that solves the problem; may be empty.
        where: the file, address or manifest key concerned; may be empty.
    """

    severity: Severity
    what: str
    fix: str = ""
    where: str = ""

    @property
    def problem(self) -> Problem:
        """The finding without its severity, as in other records."""
        return Problem(what=f"{self.where}: {self.what}" if self.where else self.what, fix=self.fix)


def error(what: str, *, fix: str = "", where: str = "") -> Finding:
    """A finding that prevents training."""
    return Finding(severity="error", what=what, fix=fix, where=where)


def warning(what: str, *, fix: str = "", where: str = "") -> Finding:
    """A finding that does not prevent training."""
    return Finding(severity="warning", what=what, fix=fix, where=where)


def from_error(problem: RaveDistError) -> Finding:
    """An exception as a finding."""
    return error(problem.what, fix=problem.fix, where=problem.where)
