"""What a machine lacks is named with its fix; with real folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rave_dist.doctor import Diagnosis, Request, machine
from rave_dist.doctor.diagnosis import Check


def only(check: Check) -> Diagnosis:
    (diagnosis,) = check(Request())
    return diagnosis


def test_temporary_files_too_deep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    diagnosis = only(machine.temporary_files)
    assert diagnosis.state == "error"
    assert "too long" in diagnosis.what
    assert str(deep) in diagnosis.what
    assert "RAY_TMPDIR=/tmp" in diagnosis.fix


def test_temporary_files_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/gone")
    diagnosis = only(machine.temporary_files)
    assert (diagnosis.state, diagnosis.what) == ("error", "/gone: the folder for temporary files does not exist")


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", "/proc/self")  # where nobody, not even root, makes files
    diagnosis = only(machine.home)
    assert diagnosis.state == "error"
    assert "/proc/self/.ray/auth_token" in diagnosis.what
    assert "set HOME" in diagnosis.fix


def test_a_home_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert only(machine.home).state == "ok"
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_a_locale_that_is_not_utf8() -> None:
    """Decided when Python starts."""
    program = "from rave_dist.doctor import Request, machine\n(d,) = machine.text_encoding(Request())\n"
    program += "print(d.state, d.what, d.fix, sep=' | ')"
    latin = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1", "LC_ALL": "C.UTF-8"}
    asked = subprocess.run([sys.executable, "-c", program], env=os.environ | latin, capture_output=True, text=True, check=True)
    state, what, fix = asked.stdout.split(" | ")
    assert state == "warning"
    assert "iso8859-1" in what or "latin-1" in what
    assert fix == "export LC_ALL=C.UTF-8\n"


def test_memory_and_shared_memory_are_named_with_their_size() -> None:
    assert "available" in only(machine.memory).what
    assert only(machine.shared_memory).what
