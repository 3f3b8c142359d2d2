"""A command in a process of its own, marked so that nothing it starts can hide."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from rave_dist.exit_codes import INTERRUPTED, TERMINATED

# A command has 3 seconds to end by itself and is ended then; the rest is for a busy machine.
BOUND_SECONDS = 15
READY_SECONDS = 400
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Command:
    """A process of its own, marked in its environment, which all its descendants inherit.

    Ray's workers write their title over the environment that the system shows: those are remembered by their parents.
    """

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self.process = process
        self._mark = mark
        self._seen: set[psutil.Process] = set()

    def stopped_by(self, *numbers: signal.Signals, within: float = BOUND_SECONDS) -> str:
        """Sends signals, a moment apart; returns what the command wrote to stderr until it ended."""
        self.processes()
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.05)
        begun = time.monotonic()
        _, stderr = self.process.communicate(timeout=READY_SECONDS)
        assert time.monotonic() - begun < within
        return stderr

    def wait_for(self, sign: Callable[[str], bool]) -> None:
        """Waits until the command line of one of its processes satisfies ``sign``."""
        deadline = time.monotonic() + READY_SECONDS
        while not any(sign(line) for line in self.processes()):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def processes(self) -> list[str]:
        """The command lines of all its processes that are there."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        lines = []
        for process in self._seen | set(psutil.process_iter()):
            with contextlib.suppress(psutil.Error):
                ours = process in self._seen or process.environ().get("RAVE_DIST_TEST_MARK") == self._mark
                if ours and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    lines.append(" ".join(process.cmdline()))
        return lines


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[Command]:
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAVE_DIST_TEST_MARK": mark} | environment,
    ) as process:
        try:
            yield Command(process, mark)
        finally:
            process.kill()
