"""A fresh process answers with a value or the same error, and ends with whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from file_systems import tmpfs

from rave_dist import isolated
from rave_dist.errors import AudioError, StoreError

FUNCTIONS = """
import os, sys, time
from pathlib import Path
from rave_dist.errors import AudioError

def echo(**request):
    print("noise on stdout")
    return {"request": request, "pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}

def refuse(where):
    raise AudioError("damaged", where=where, fix="replace it")

def fail():
    raise ValueError("first line\\nsecond line")

def leave(code):
    print("last words", file=sys.stderr)
    sys.exit(code)

def end_by_signal():
    os.kill(os.getpid(), 9)

def fill(size):
    try:
        with open(os.path.join(os.environ["TMPDIR"], "large"), "wb", buffering=0) as file:
            while True:
                file.write(bytes(size))
    except OSError:
        os.abort()  # as torch does

def fill_until_it_ends():
    # The answer cannot be written, nor why; the last thing that it does is to free the space.
    import atexit
    large = open(os.path.join(os.environ["TMPDIR"], "large"), "wb", buffering=0)
    atexit.register(lambda: os.truncate(large.name, 0))
    try:
        while True:
            large.write(bytes(4096))
    except OSError:
        return "done"

def wait(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "functions_of_a_test.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def _run(name: str, stop: Callable[[], bool] = lambda: False, timeout: float | None = None, **request: object) -> object:
    environment = {"OMP_NUM_THREADS": "3"}
    return isolated.run(f"functions_of_a_test:{name}", request, environment=environment, timeout=timeout, stop=stop)


def test_values_cross_both_ways_and_output_does_not_disturb() -> None:
    request = {"text": "ü\n", "number": 1.5, "list": [1, None, True], "record": {"a": {}}}
    answer = _run("echo", **request)
    assert isinstance(answer, dict)
    assert answer["request"] == request
    assert answer["pid"] != os.getpid()
    assert answer["threads"] == "3"


def test_an_error_for_people_comes_back_as_it_was() -> None:
    with pytest.raises(AudioError) as caught:
        _run("refuse", where="/take.wav")
    assert (caught.value.what, caught.value.where, caught.value.fix) == ("damaged", "/take.wav", "replace it")


@pytest.mark.parametrize(
    ("name", "request_", "exit_code", "last_words"),
    [
        ("fail", {}, 1, "ValueError: first line"),
        ("leave", {"code": 7}, 7, "last words"),
        ("end_by_signal", {}, -signal.SIGKILL, "no output"),
        ("no_such_function", {}, 1, "AttributeError: module 'functions_of_a_test' has no attribute 'no_such_function'"),
    ],
)
def test_a_process_without_an_answer_says_how_it_ended(
    name: str, request_: dict[str, object], exit_code: int, last_words: str
) -> None:
    with pytest.raises(isolated.ProcessDied) as caught:
        _run(name, **request_)
    assert (caught.value.exit_code, caught.value.last_words) == (exit_code, last_words)


def _is_gone(path: Path) -> bool:
    try:  # an orphan that ended waits for the system to collect it
        return psutil.Process(int(path.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_one_that_dies_of_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tmpfs(tmp_path, megabytes=2) as place:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        monkeypatch.setenv("TMPDIR", str(place))
        with pytest.raises(StoreError, match="the disk is full") as caught:
            _run("fill", size=4096)
    assert caught.value.where == str(place)
    assert "TMPDIR" in caught.value.fix


def test_so_does_one_whose_last_words_were_lost_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time at which it has ended others have freed space, so the disk is not full any more."""
    with tmpfs(tmp_path, megabytes=4) as place:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        monkeypatch.setenv("TMPDIR", str(place))
        with pytest.raises(StoreError, match="the disk is full"):
            _run("fill_until_it_ends")


def test_it_ends_when_asked_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(isolated.Stopped):
        _run("wait", stop=lambda: path.exists() and bool(path.read_text()), path=str(path))
    assert _is_gone(path)


def test_it_ends_when_it_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(isolated.TimedOut):
        _run("wait", timeout=0.1, path=str(tmp_path / "pid"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    # A process that a shell started in the background inherits that SIGINT is ignored.
    program = (
        "import json, signal, sys; from rave_dist import isolated;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "isolated.run(sys.argv[1], json.loads(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, "functions_of_a_test:wait", json.dumps({"path": str(path)})]
    parent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (path.exists() and path.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 60
    while not _is_gone(path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
