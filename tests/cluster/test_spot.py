"""The watcher of a host: a notice or SIGTERM drains its real Ray node with the deadline, and the watcher ends with the node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from metadata_services import Aws, MetadataService

from rave_dist.cluster.notices import Notice
from rave_dist.cluster.spot import drain, local_nodes


class BusyNode:
    """A node with an actor that is at work, in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        where = self._line()
        self.address, self.node = where["address"], where["node"]

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(next(line for line in self._process.stdout if line.startswith(("{", '"'))))

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def draining(self) -> dict[str, int]:
        self._say("draining")
        draining: dict[str, int] = self._line()
        return draining

    def end_head(self) -> str:
        """What a driver finds then."""
        self._say("end head")
        return str(self._line())

    def free(self) -> None:
        self._say("free")


@pytest.fixture
def busy_node() -> Iterator[BusyNode]:
    temporary = tempfile.mkdtemp(prefix="rd-")  # not tmp_path: Ray's sockets need a path of less than 107 characters
    os.mkdir(f"{temporary}/ray")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("busy_node.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RAY_TMPDIR": temporary, "RAY_raylet_start_wait_time_s": "120"},
        cwd=temporary,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield BusyNode(process)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _watching(node: BusyNode, metadata: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "rave_dist.cluster.spot", "--address", node.address, "--metadata", metadata, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"the watcher ended without {text!r}:\n{read}")


def test_a_notice_drains_the_node_until_its_deadline(busy_node: BusyNode) -> None:
    assert [node.id for node in local_nodes(busy_node.address)] == [busy_node.node]
    assert busy_node.node in [node.id for node in local_nodes()]
    deadline = int(time.time()) + 600
    with Aws().running() as aws, _watching(busy_node, aws.address) as watcher:
        _read_until(watcher, "asking AWS")
        assert busy_node.draining() == {}
        aws.broken = True
        _read_until(watcher, "AWS does not answer")
        aws.action = {"action": "terminate", "time": f"{datetime.fromtimestamp(deadline, UTC):%Y-%m-%dT%H:%M:%SZ}"}
        aws.broken = False
        assert busy_node.node in _read_until(watcher, "AWS: spot instance, terminate")
        assert busy_node.draining() == {busy_node.node: deadline * 1000}
        busy_node.free()
        _read_until(watcher, "have ended")  # Ray ends a drained node without work
        assert watcher.wait() == 0


def test_sigterm_drains_the_node_and_waits_for_its_work(busy_node: BusyNode) -> None:
    with MetadataService().running() as none, _watching(busy_node, none.address, "--grace-seconds", "600") as watcher:
        _read_until(watcher, "no cloud")
        (node,) = local_nodes(busy_node.address)
        drain(node, Notice("late", time.time() - 60))  # a notice may be seen late, and be followed by another
        assert list(busy_node.draining()) == [busy_node.node]
        before = time.time()
        watcher.send_signal(signal.SIGTERM)
        _read_until(watcher, "SIGTERM")
        (deadline,) = busy_node.draining().values()
        assert before + 600 <= deadline / 1000 + 0.001 <= time.time() + 600
        assert watcher.poll() is None
        busy_node.free()
        assert watcher.wait() == 0


def test_without_ray_it_says_what_to_do() -> None:
    command = [sys.executable, "-m", "rave_dist.cluster.spot", "--address", "127.0.0.1:1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "no Ray node runs on this host" in ended.stderr
    assert "ray start" in ended.stderr


def test_a_head_that_is_gone_is_named(busy_node: BusyNode) -> None:
    """Ray itself would wait for a minute, and then end the process."""
    assert busy_node.draining() == {}
    assert "the head of the cluster does not answer" in busy_node.end_head()
