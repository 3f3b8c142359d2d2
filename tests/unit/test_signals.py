"""Real processes and real signals: a command ends soon at any moment, says so, and leaves no process behind."""

from __future__ import annotations

import signal
import socket
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rave_dist.exit_codes import INTERRUPTED, TERMINATED
from rave_dist.signals import STOPPED
from tests.marked_command import CODES, READY_SECONDS, Command, command

pytestmark = pytest.mark.slow

both_signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


@contextmanager
def installed(body: str, **environment: str) -> Iterator[Command]:
    """A program with our handlers whose ``body`` calls ``ready()`` where signals may come."""
    program = """
import subprocess, sys, threading, time
from rave_dist import signals

def ready():
    print("READY", flush=True)

def main():
    signals.install()
BODY

try:
    main()
except KeyboardInterrupt as stop:
    print("caught", type(stop).__name__, file=sys.stderr)
    signals.end(signals.exit_code(stop))
""".replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    with command("-c", program, **environment) as started:
        assert started.process.stdout is not None
        assert started.process.stdout.readline() == "READY\n"
        yield started


@both_signals
def test_python_code_is_interrupted(number: signal.Signals) -> None:
    with installed("ready(); time.sleep(600)") as started:
        assert started.stopped_by(number) == f"caught {'Terminated' if number == signal.SIGTERM else 'KeyboardInterrupt'}\n"
        assert started.process.returncode == CODES[number]


def test_a_library_that_raises_its_own_interrupt_changes_no_exit_code() -> None:
    body = """
    try:
        ready()
        time.sleep(600)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None
    """
    with installed(body) as started:
        assert started.stopped_by(signal.SIGTERM) == "caught KeyboardInterrupt\n"
        assert started.process.returncode == TERMINATED


@both_signals
def test_a_library_that_never_returns_is_ended(number: signal.Signals) -> None:
    """No Python handler runs while C code waits: here for a lock that nobody releases, which starts again after a signal."""
    body = """
    import ctypes
    lock = ctypes.create_string_buffer(64)
    pthread = ctypes.CDLL(None)
    pthread.pthread_mutex_lock(lock)
    ready()
    pthread.pthread_mutex_lock(lock)
    """
    with installed(body) as started:
        time.sleep(0.5)
        assert STOPPED in started.stopped_by(number)
        assert started.process.returncode == CODES[number]


def test_one_that_does_not_want_to_end_is_ended() -> None:
    body = """
    while True:
        try:
            ready()
            time.sleep(600)
        except KeyboardInterrupt:
            print("no", file=sys.stderr, flush=True)
    """
    with installed(body) as started:
        assert started.stopped_by(signal.SIGINT) == f"no\n{STOPPED}\n"
        assert started.process.returncode == INTERRUPTED


def test_an_end_that_takes_long_is_said_once() -> None:
    """The guard ends a command that has said so already, and is busy ending its processes, without another word."""
    body = """
    try:
        ready()
        time.sleep(600)
    except KeyboardInterrupt:
        signals.say_stopped(lambda text: print(text, file=sys.stderr, flush=True))
        time.sleep(600)
    """
    with installed(body) as started:
        assert started.stopped_by(signal.SIGINT) == f"{STOPPED}\n"
        assert started.process.returncode == INTERRUPTED


@both_signals
def test_an_interrupt_in_a_destructor_is_raised_after_it(number: signal.Signals) -> None:
    """Python prints what a destructor raises and continues: here in ``__del__``, in libraries in callbacks from C."""
    body = """
    class Slow:
        def __del__(self):
            ready()
            time.sleep(0.5)

    Slow()
    time.sleep(600)
    """
    with installed(body) as started:
        assert started.stopped_by(number) == f"caught {'Terminated' if number == signal.SIGTERM else 'KeyboardInterrupt'}\n"
        assert started.process.returncode == CODES[number]


@both_signals
@pytest.mark.parametrize("wait", [0.0, 1.5, 600.0])
def test_a_finished_command_ends_as_it_finished(number: signal.Signals, wait: float) -> None:
    """What runs at the end of a process is not interrupted, and ended if it does not end; Python resets handlers there."""
    body = f"""
    import atexit

    class Last:
        def __del__(self, sleep=time.sleep):
            sleep(0.5)

    sys.kept = Last()
    atexit.register(time.sleep, {wait})
    signals.finish(3)
    ready()
    sys.exit(3)
    """
    with installed(body) as started:
        time.sleep(0.2)
        assert started.stopped_by(number) == ""
        assert started.process.returncode == 3


def test_a_signal_that_comes_twice_at_once_counts_once() -> None:
    """``timeout`` sends it to the process and to its group."""
    body = """
    try:
        ready()
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep(1.5)
        print("cleaned up", file=sys.stderr, flush=True)
        raise
    """
    with installed(body) as started:
        assert started.stopped_by(signal.SIGTERM, signal.SIGTERM) == "cleaned up\ncaught Terminated\n"
        assert started.process.returncode == TERMINATED


def test_who_has_to_save_gets_the_time() -> None:
    body = """
    with signals.allow(lambda: 60.0):
        try:
            ready()
            time.sleep(600)
        except KeyboardInterrupt:
            time.sleep(signals.GRACE_SECONDS + 2)
            print("saved", file=sys.stderr, flush=True)
            raise
    """
    with installed(body) as started:
        assert started.stopped_by(signal.SIGINT).startswith("saved")
        assert started.process.returncode == INTERRUPTED


def test_a_second_signal_ends_at_once() -> None:
    body = """
    with signals.allow(lambda: 600.0):
        try:
            ready()
            time.sleep(600)
        except KeyboardInterrupt:
            print("saving", flush=True)
            time.sleep(600)
    """
    with installed(body) as started:
        started.process.send_signal(signal.SIGINT)
        assert started.process.stdout is not None
        assert started.process.stdout.readline() == "saving\n"
        time.sleep(1.5)
        assert started.stopped_by(signal.SIGINT) == f"{STOPPED}\n"


def test_no_descendant_is_left() -> None:
    """Neither a child, nor one that has lost its parent, nor one that ignores signals."""
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    ignoring = f"import signal, time; {ignore}; time.sleep(600)"
    starting = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    body = f"""
    sleeper = [sys.executable, "-c", {ignoring!r}]
    subprocess.Popen(sleeper)
    subprocess.run([sys.executable, "-c", {starting!r}, *sleeper])
    ready()
    time.sleep(600)
    """
    with installed(body) as started:
        assert len(started.processes()) == 3
        started.stopped_by(signal.SIGTERM)
        assert started.process.returncode == TERMINATED
        assert started.processes() == []


def test_a_forked_process_keeps_its_signals_to_itself() -> None:
    body = """
    import os
    ready()
    child = os.fork()
    if child == 0:
        time.sleep(600)
    time.sleep(0.5)
    os.kill(child, 15)
    print("child", os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
    time.sleep(signals.GRACE_SECONDS + 2)
    print("alive", flush=True)
    """
    with installed(body) as started:
        stdout, _ = started.process.communicate(timeout=READY_SECONDS)
        assert stdout == "child 15\nalive\n"
        assert started.process.returncode == 0


@both_signals
def test_the_command_while_it_loads(number: signal.Signals) -> None:
    with command("-m", "rave_dist", "models", "--store", "/") as started:
        time.sleep(0.3)
        started.process.send_signal(number)
        started.process.communicate(timeout=READY_SECONDS)
        # Before our first line Python itself is asked; after the last one, there is nothing left to stop.
        assert started.process.returncode in {CODES[number], -number, 0}
        assert started.processes() == []


@both_signals
def test_the_command_while_it_asks_a_cluster_that_hangs(number: signal.Signals, tmp_path: Path) -> None:
    manifest = tmp_path / "library.yaml"
    manifest.write_text(f"name: small\nstore: {tmp_path / 'store'}\ninstruments:\n  drum: {{sources: [{tmp_path}]}}\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        command("-m", "rave_dist", "ingest", str(manifest), RAY_ADDRESS=f"127.0.0.1:{server.getsockname()[1]}") as started,
    ):
        server.settimeout(READY_SECONDS)
        connection, _ = server.accept()  # it asks now
        with connection:
            assert STOPPED in started.stopped_by(number)
        assert started.process.returncode == CODES[number]
        assert started.processes() == []
