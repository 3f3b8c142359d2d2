"""Ctrl-C and SIGTERM: both end a command, with all its processes, within seconds at any moment.

A Python handler runs only between two instructions of the main thread, which may be inside a library for minutes (Ray while
waiting for a cluster). So the system reports every signal to a guard thread at once, which ends the command if it does not end
within a few seconds. Nothing is lost: the store ignores results without their marker.
"""

from __future__ import annotations

import atexit
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
from typing import TYPE_CHECKING, Final, NoReturn

from rave_dist.exit_codes import INTERRUPTED, TERMINATED

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

GRACE_SECONDS: Final = 3.0
"""Time for a command to end, unless `allow` grants more."""

STOPPED: Final = "Stopped. No partial results were kept; run the same command to resume."

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS = 1.0
_POLL_SECONDS = 0.1
_KILL_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36

_allowances: list[Callable[[], float]] = []
_heard: list[int] = []  # signals so far, in order
_finished: list[int] = []  # the exit code of a finished command
_swallowed = threading.Event()  # an interrupt was raised where Python cannot pass it on
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


def finish(code: int) -> None:
    """Leaves the process to end with ``code``, that of a finished command, whatever signals arrive from now on."""
    _finished.append(code)


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
        if len(_heard) == 1 and not _finished:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    for number in _HANDLED:
        signal.signal(number, interrupt)
    atexit.register(_ignore_signals)  # the first is called last: after it, Python removes its handlers
    sys.unraisablehook = _note_swallowed
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
    _leave(code)


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
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    sys.unraisablehook = sys.__unraisablehook__


def _ignore_signals() -> None:
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)


def _note_swallowed(unraisable: UnraisableHookArgs) -> None:
    """A destructor or a callback from C swallows an interrupt: the guard raises it again, and nothing is printed."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _swallowed.set()
    else:
        sys.__unraisablehook__(unraisable)


def _guard(reader: socket.socket) -> None:
    """Ends the process at its time limit; runs in a daemon thread."""
    first: tuple[int, float] | None = None
    while True:
        ready, _, _ = select.select([reader], [], [], None if first is None else _POLL_SECONDS)
        numbers = [n for n in (reader.recv(64) if ready else b"") if n in _HANDLED]
        now = time.monotonic()
        if first is None:
            first = (numbers[0], now) if numbers else None
            continue
        number, since = first
        if _swallowed.is_set():
            _swallowed.clear()
            _heard.clear()
            first = (number, now)
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            continue
        allowed = GRACE_SECONDS + max((seconds() for seconds in list(_allowances)), default=0.0)
        again = bool(numbers) and now - since > _REPEAT_SECONDS  # "timeout" and terminals may send the same one twice
        if again or now - since > allowed:
            _end_now(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


def _end_now(code: int) -> None:
    """Ends the process from the guard thread; the main thread may hold the locks of the streams."""
    if _finished:
        _leave(_finished[0])
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # shows the cursor
        say_stopped(lambda text: os.write(2, f"{text}\n".encode()))
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends descendants and process; other threads, which miss the descendants, write nothing more."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    kill_descendants()
    os._exit(code)
