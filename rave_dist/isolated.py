"""Runs a function of this package in a fresh Python process: JSON values in, a JSON value or a `RaveDistError` out.

For work that configures the whole process, like RAVE's, or that may end it, like running out of memory. The process ends
with the caller: when it is interrupted, asked to stop, or killed.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rave_dist import errors
from rave_dist.errors import RaveDistError, known_error
from rave_dist.temporary import temporary_folder

_POLL_SECONDS = 0.5
_FULL_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessDied(Exception):
    """The process ended without a result.

    Args:
        exit_code: negative if a signal ended it.
        last_words: its exception, or its last line on stderr.
    """

    def __init__(self, exit_code: int, last_words: str) -> None:
        self.exit_code = exit_code
        self.last_words = last_words
        super().__init__(f"exit code {exit_code}: {last_words}")


class TimedOut(Exception):
    """The process did not end in time."""


class Stopped(Exception):
    """The caller asked to stop."""


def run(
    function: str,
    request: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Calls a function in a fresh process and returns its result.

    Args:
        function: ``package.module:function``; receives the request as keyword arguments.
        request: JSON values.
        environment: environment variables to add or replace.
        timeout: seconds.
        stop: called twice a second; if it returns True, the process is ended.

    Raises:
        RaveDistError: raised by the function, as the same class.
        StoreError: the process died because the disk for temporary files is full.
        ProcessDied: it raised another exception, or the process ended without a result.
        TimedOut: it ran longer than `timeout`.
        Stopped: `stop` returned True.
    """
    with temporary_folder("isolated") as folder:
        answer = Path(folder, "answer.json")
        question = Path(folder, "request.json")
        question.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "rave_dist.isolated", function, str(answer), str(os.getpid())]
        with open(question, "rb") as stdin, open(Path(folder, "stderr"), "w+b") as stderr:
            child = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, env=_environment(environment or {})
            )
            try:
                _wait(child, timeout, stop)
            finally:
                child.kill()
                child.wait()
            if not answer.exists():
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines()
                # Whatever it said, because torch aborts when it cannot write. Python says something when it fails, unless the
                # disk was too full for it, where others may have freed space since.
                is_mute = not lines and child.returncode >= 0
                if is_mute or shutil.disk_usage(folder).free < _FULL_BYTES:
                    full = known_error(OSError(errno.ENOSPC, ""))
                    assert full is not None
                    raise full
                raise ProcessDied(child.returncode, lines[-1] if lines else "no output")
        outcome = json.loads(answer.read_bytes())
    if "error" in outcome:
        kind, what, where, fix = outcome["error"]
        raised: RaveDistError = getattr(errors, kind)(what, where=where, fix=fix)
        raise raised
    if "failure" in outcome:
        raise ProcessDied(child.returncode, outcome["failure"])
    return outcome["value"]


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    package = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


def _wait(child: subprocess.Popen[bytes], timeout: float | None, stop: Callable[[], bool]) -> None:
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        if stop():
            raise Stopped
        try:
            child.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if end is not None and time.monotonic() > end:
                raise TimedOut from None


def _end_with(parent: int) -> None:
    """Ends this process when its parent is killed, if the system supports it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed since
        os._exit(1)


def main(function: str, answer: str, parent: str) -> None:
    """In the child process: reads the request from stdin and writes the result to a file."""
    _end_with(int(parent))
    module, _, name = function.partition(":")
    try:
        outcome = {"value": getattr(importlib.import_module(module), name)(**json.load(sys.stdin))}
    except Exception as error:
        known = known_error(error)
        if known is not None:
            _write_outcome(answer, {"error": [type(known).__name__, known.what, known.where, known.fix]})
            return
        said = str(error).strip().partition("\n")[0]
        _write_outcome(answer, {"failure": f"{type(error).__name__}: {said}" if said else type(error).__name__})
        raise
    _write_outcome(answer, outcome)


def _write_outcome(answer: str, outcome: dict[str, Any]) -> None:
    Path(f"{answer}.part").write_text(json.dumps(outcome), encoding="utf-8")
    os.rename(f"{answer}.part", answer)  # whole, or not at all


if __name__ == "__main__":
    main(*sys.argv[1:])
