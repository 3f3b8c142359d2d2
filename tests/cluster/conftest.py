"""A cluster of two nodes in processes of its own, because the test process may be connected to another Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_ports


@dataclass(frozen=True)
class TwoNodes:
    """Where the cluster answers: drivers, jobs, and the ids of its nodes, head first."""

    address: str
    dashboard: str
    nodes: tuple[str, str]

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that is to run there."""
        return {**os.environ, "RAY_ADDRESS": self.address, "COLUMNS": "200"}


@pytest.fixture(scope="module")
def two_nodes(s3_server: str) -> Iterator[TwoNodes]:
    """Two nodes of two (logical) CPUs each; they share this machine's disk, but tests give them work on S3 alone."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` in a job is this environment's
    temporary = tempfile.mkdtemp(prefix="rd-")  # not tmp_path: Ray's sockets need a path of less than 107 characters
    os.mkdir(f"{temporary}/ray")
    host = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py")), *map(str, free_ports(3))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RAY_TMPDIR": temporary, "PATH": programs, "RAY_raylet_start_wait_time_s": "120"},
        cwd=temporary,
        text=True,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        line = next((line for line in host.stdout if line.startswith("{")), None)
        assert line is not None, "the cluster did not start"
        ready = json.loads(line)
        yield TwoNodes(ready["address"], ready["dashboard"], tuple(ready["nodes"]))
    finally:
        host.stdin.close()  # tells it to end
        try:
            host.wait(60)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()
        host.stdout.close()
        shutil.rmtree(temporary, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--night", type=int, default=0, help="the number of instruments of a whole night with all faults")
    parser.addoption("--faults", default="", help="of a night: their names, separated by ', '")
    parser.addoption("--seed", type=int, default=1, help="draws the faults of a night and their moments")
