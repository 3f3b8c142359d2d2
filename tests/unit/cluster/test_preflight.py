"""What keeps an embedded Ray from starting is found before, with its own message and fix; real folders and ports."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rave_dist.cluster import preflight
from rave_dist.errors import ClusterError


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder in which nobody can make a file: root too cannot below a file, or in /proc."""
    if os.geteuid() == 0:
        return Path("/proc/self")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder


def test_a_deep_folder_is_too_long_for_a_socket() -> None:
    fits = preflight.MAX_SOCKET_BYTES - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
    preflight.check_socket_path(Path("/" + "a" * (fits - 1)))
    with pytest.raises(ClusterError, match="1 bytes too long") as refused:
        preflight.check_socket_path(Path("/" + "a" * fits))
    assert "RAY_TMPDIR=/tmp" in refused.value.fix


def test_bytes_count_not_letters() -> None:
    with pytest.raises(ClusterError, match="too long"):
        preflight.check_socket_path(Path("/" + "é" * 25))


def test_the_longest_socket_is_rays(tmp_path: Path) -> None:
    """Ray's own rule refuses exactly what ours refuses."""
    from ray._private.utils import validate_socket_filepath

    for letters in range(25, 45):
        folder = Path("/" + "a" * letters)
        try:
            validate_socket_filepath(str(folder / preflight._LONGEST_SOCKET))
        except OSError:
            with pytest.raises(ClusterError):
                preflight.check_socket_path(folder)
        else:
            preflight.check_socket_path(folder)


def test_temporary_files_need_a_folder(tmp_path: Path) -> None:
    preflight.check_temp_folder(tmp_path)
    with pytest.raises(ClusterError, match="does not exist") as refused:
        preflight.check_temp_folder(tmp_path / "gone")
    assert refused.value.where == str(tmp_path / "gone")


def test_temporary_files_need_permission(read_only: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be written") as refused:
        preflight.check_temp_folder(read_only)
    assert "RAY_TMPDIR" in refused.value.fix


def test_temporary_files_need_space(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"only \d+ MiB free") as refused:
        preflight.check_temp_folder(tmp_path, min_free_bytes=2**62)
    assert refused.value.where == str(tmp_path)


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "home" / ".ray" / "auth_token"
    preflight.ensure_token(file)
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    preflight.ensure_token(file)
    assert file.read_text() == token


def test_a_token_that_others_can_read_is_protected(tmp_path: Path) -> None:
    file = tmp_path / "auth_token"
    file.write_text("a" * 64)
    file.chmod(0o644)
    preflight.ensure_token(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_home_that_cannot_be_written(read_only: Path) -> None:
    with pytest.raises(ClusterError, match="token file cannot be used") as refused:
        preflight.ensure_token(read_only / ".ray" / "auth_token")
    assert "set HOME" in refused.value.fix


def test_an_empty_token(tmp_path: Path) -> None:
    (tmp_path / "auth_token").touch()
    with pytest.raises(ClusterError, match="empty"):
        preflight.ensure_token(tmp_path / "auth_token")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port} is in use"):
            preflight.check_port(port)
    preflight.check_port(port)


def test_too_little_memory() -> None:
    assert preflight.available_memory() > 0
    preflight.check_memory(preflight.MIN_MEMORY_BYTES)
    with pytest.raises(ClusterError, match="only 100 MiB of memory"):
        preflight.check_memory(100 * 2**20)


def test_where_temporary_files_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray itself chooses."""
    from ray._common.utils import get_default_system_temp_dir

    for variables in ({}, {"TMPDIR": "/var/tmp"}, {"TMPDIR": "/var/tmp", "RAY_TMPDIR": "/opt"}):
        for name in ("TMPDIR", "RAY_TMPDIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert str(preflight.temp_folder()) == get_default_system_temp_dir()
