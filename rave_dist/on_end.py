"""Notifies a program or a web address of the end of a library's training, as the manifest requests it (``on_end``).

Whatever goes wrong here is a warning: the results are in the store. An interrupted command notifies nobody, because it is not
the end: the same command resumes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, BinaryIO, Literal
from urllib.parse import urlsplit

from rave_dist.errors import known_error
from rave_dist.library.manifest import Library
from rave_dist.records import Problem, RunRecord, now

PROGRAM_SECONDS = 60.0
"""Time for the program to end; then it is killed."""

_ANSWER_SECONDS = 10.0
_STATES = {True: "done", False: "partial", None: "failed"}


@dataclass
class Ending:
    """The outcome of a command, as far as it is known; ``complete`` is None while it is not."""

    library: str
    command: Literal["run", "train"]
    began_at: str = ""
    complete: bool | None = None
    records: Sequence[RunRecord] = ()
    report: str | None = None
    error: Problem | None = None
    spent: Mapping[str, float] = field(default_factory=dict)  # hours and cost of the training

    def begin(self) -> None:
        """The command is at work on the library; before, there is nothing to report."""
        self.began_at = now()

    def to_json(self) -> dict[str, Any]:
        """The summary: the outcome, one sentence about it, and the instruments as in the document of the command."""
        return {
            "library": self.library,
            "command": self.command,
            "state": _STATES[self.complete],
            "text": self._sentence(),
            "began_at": self.began_at,
            "ended_at": now(),
            "instruments": [record.summary() for record in self.records],
            **self.spent,
            "report": self.report,
            "error": self.error and self.error.to_json(),
        }

    def _sentence(self) -> str:
        if self.error is not None:
            return f"{self.library}: {self.command} failed: {self.error.what}"
        done = sum(record.state == "done" for record in self.records)
        failed = [f"{r.instrument} ({r.error.what})" if r.error else r.instrument for r in self.records if r.state != "done"]
        failures = f"; not done: {', '.join(failed)}" if failed else ""
        return f"{self.library}: {done} of {len(self.records)} instruments are done{failures}"


@contextmanager
def notifying(library: Library, command: Literal["run", "train"], say: Callable[[str], None]) -> Iterator[Ending]:
    """Notifies the library's ``on_end`` of the end of the command in the context, successful or not.

    Args:
        library: the library.
        command: the name of the command.
        say: called with a warning if that fails.
    """
    ending = Ending(library.name, command)
    try:
        yield ending
    except Exception as error:
        known = known_error(error)
        ending.complete = None
        ending.error = Problem(what=f"{type(error).__name__}: {error}") if known is None else Problem.of(known)
        _notify(library, ending, say)
        raise
    _notify(library, ending, say)


def missing_program(library: Library) -> str:
    """The program of ``on_end``, if this machine does not have it; otherwise an empty string."""
    receiver = library.manifest.on_end
    if receiver is None or isinstance(receiver, str) or _program(library, receiver) is not None:
        return ""
    return receiver[0]


def _notify(library: Library, ending: Ending, say: Callable[[str], None]) -> None:
    receiver = library.manifest.on_end
    if receiver is None or not ending.began_at:
        return
    summary = json.dumps(ending.to_json(), ensure_ascii=False).encode()
    problem = _post(receiver, summary) if isinstance(receiver, str) else _run(library, receiver, summary)
    if problem:
        say(f"warning: on_end: {problem}")


def _program(library: Library, command: Sequence[str]) -> str | None:
    """The path of a program, by its name or relative to the manifest's folder; None if it cannot be run."""
    name = os.path.expanduser(command[0])
    return shutil.which(str(library.path.parent / name) if os.path.dirname(name) else name)


def _run(library: Library, command: Sequence[str], summary: bytes) -> str:
    """Runs a program in the manifest's folder with the summary on its stdin; returns what went wrong."""
    program = _program(library, command)
    if program is None:
        return f"there is no program {command[0]!r} that can be run"
    try:
        # Files rather than pipes: neither side waits for the other, nor for what the program leaves running.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
            given.write(summary)
            given.seek(0)
            started = subprocess.Popen(
                [program, *command[1:]],
                cwd=library.path.parent,
                stdin=given,
                stdout=said,
                stderr=complained,
                start_new_session=True,
            )
            try:
                code = started.wait(timeout=PROGRAM_SECONDS)
            except subprocess.TimeoutExpired:
                return f"{command[0]} did not end within {PROGRAM_SECONDS:.0f} seconds and was killed"
            finally:
                if started.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(started.pid, signal.SIGKILL)
                    started.wait()
            last = _last_line(complained) or _last_line(said)
    except (OSError, ValueError) as error:
        return f"{command[0]} could not be run: {error}"
    return f"{command[0]} ended with exit code {code}{f': {last}' if last else ''}" if code else ""


def _last_line(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip().rpartition("\n")[2]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, without the summary."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(address: str, summary: bytes) -> str:
    """Posts the summary; returns what went wrong, without the address, whose path may be a secret."""
    host = urlsplit(address).hostname
    try:
        request = urllib.request.Request(address, summary, {"Content-Type": "application/json"}, method="POST")
        urllib.request.build_opener(_NoRedirects).open(request, timeout=_ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        with error:
            return f"{host} answered {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{host} could not be reached: {getattr(error, 'reason', error)}"
    return ""
