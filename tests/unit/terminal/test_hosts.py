"""What ``rave-dist hosts`` prints."""

from __future__ import annotations

import pytest

from rave_dist.cluster.inventory import HostReport
from rave_dist.terminal.hosts import show


def test_the_reason_of_a_missing_host_is_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ("error: uv could not be installed:", "    no [red]space[/] left")
    failed = HostReport(
        address="10.0.0.2", state="failed", reason="its set-up failed", command="make data", output=lines, fix="repair it"
    )
    show([HostReport(address="10.0.0.1", role="head", state="alive", cpus=8.0, gpus=1.0), failed])
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [
        ["host", "role", "state", "CPUs", "GPUs"],
        ["10.0.0.1", "head", "alive", "8", "1"],
        ["10.0.0.2", "worker", "failed"],
    ]
    assert shown.err.splitlines() == [
        "✗ 10.0.0.2: its set-up failed",
        "    command make data",
        "    | error: uv could not be installed:",
        "    |     no [red]space[/] left",
        "    fix repair it",
    ]
