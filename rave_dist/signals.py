"""Ctrl-C and SIGTERM: both end a command, with all its processes, within seconds at any moment.

A Python handler runs only between two instructions of the main thread, which may be inside a library for minutes (Ray while
waiting for a cluster). So the system reports every signal to a guard thread at once, which ends the command if it does not end
within a few seconds. Nothing is lost: the store ignores results without their marker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from rave_dist.exit_codes import INTERRUPTED, TERMINATED

GRACE_SECONDS: Final = 3.0
"""Time for a command to end, unless `allow` grants more."""

STOPPED: Final = "Stopped. No partial results were kept; run the same command to resume."

_REPEAT_SECONDS = 1.0
_POLL_SECONDS = 0.1
_KILL_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36

_allowances: list[Callable[[], float]] = []
_heard: list[int] = []  # signals so far, in order
_said = threading.Lock()  # taken by the first thread that says the command stopped, and never released


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped; libraries may have replaced a `Terminated` by a KeyboardInterrupt."""
    return TERMINATED if isinstance(stop, Terminated) or _heard[:1] == [signal.SIGTERM] else INTERRUPTED


def say_stopped(write: Callable[[str], object]) -> None:
    """Writes the message of a stopped command with ``write``, once per process: its end may outlast the guard's patience."""
    if _said.acquire(blocking=False):
        write(STOPPED)


@contextmanager
def allow(seconds: Callable[[], float]) -> Iterator[None]:
    """Allows the work in a context more time to end after a signal.

    Args:
        seconds: called after a signal; returns the seconds beyond `GRACE_SECONDS`.
    """
    _allowances.append(seconds)
    try:
        yield
    finally:
        _allowances.remove(seconds)


def install() -> None:
    """Installs the handlers for the rest of the process; has no effect outside the main thread.

    The first signal raises KeyboardInterrupt or `Terminated` in the main thread. Another, more than a second later, ends the
    process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _adopt_orphans()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_uninstall)

    def interrupt(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        if len(_heard) == 1:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    threading.Thread(target=_guard, args=(reader,), name="signal guard", daemon=True).start()


@contextmanager
def keeping_sigterm() -> Iterator[bool]:
    """Restores the handler of SIGTERM at the end of a context; yields whether this is the main thread, where handlers run."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield True
    finally:
        if before is not None:  # as it is where the handler is not Python's
            signal.signal(signal.SIGTERM, before)


def end(code: int) -> None:
    """Ends the process and all its descendants, without the interpreter's shutdown.

    An interrupted start of Ray leaves threads behind that crash during a shutdown.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    kill_descendants()
    os._exit(code)


def kill_descendants() -> None:
    """Kills all descendants of this process, orphans included."""
    import psutil

    for _ in range(3):  # a dying process may have started another
        below = psutil.Process().children(recursive=True)
        if not below:
            return
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(below, timeout=_KILL_SECONDS)


def _adopt_orphans() -> None:
    """Makes this process the parent of orphaned descendants; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _uninstall() -> None:
    """Detaches a forked process from the guard of its parent."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _guard(reader: socket.socket) -> None:
    """Ends the process at its time limit; runs in a daemon thread."""
    first: tuple[int, float] | None = None
    while True:
        ready, _, _ = select.select([reader], [], [], None if first is None else _POLL_SECONDS)
        numbers = [n for n in (reader.recv(64) if ready else b"") if n in (signal.SIGINT, signal.SIGTERM)]
        now = time.monotonic()
        if first is None:
            first = (numbers[0], now) if numbers else None
            continue
        number, since = first
        allowed = GRACE_SECONDS + max((seconds() for seconds in list(_allowances)), default=0.0)
        again = bool(numbers) and now - since > _REPEAT_SECONDS  # "timeout" and terminals may send the same one twice
        if again or now - since > allowed:
            _end_now(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


def _end_now(code: int) -> None:
    """Ends the process from the guard thread; the main thread may hold the locks of the streams."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # shows the cursor
        say_stopped(lambda text: os.write(2, f"{text}\n".encode()))
    kill_descendants()
    os._exit(code)
