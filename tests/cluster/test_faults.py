"""Faults in the middle of a library's night on four hosts, by hand: see `tests.cluster.night`."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_systems import can_mount_memory

from tests.cluster.night import BROKEN, HOSTS, night
from tests.cluster.night_faults import FAULTS


def test_every_instrument_ends_published_as_without_faults(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    instruments = request.config.getoption("--night", 0)
    if not instruments:
        pytest.skip("a night takes minutes of CPU time: --night 12, or a part: --night 2 --faults 'a host dies'")
    faults = {name: FAULTS[name] for name in (request.config.getoption("--faults", "") or ", ".join(FAULTS)).split(", ")}
    if not request.config.getoption("--faults", "") and instruments < HOSTS:
        del faults["a controller is killed"]  # no run has several workers
    if not can_mount_memory() and faults.pop("a disk is full", None):
        print("left out: a disk is full, because mounting a small one needs root")
    late = "a host joins" in faults
    with night(request.getfixturevalue("s3_server"), instruments, steps=120, late=late) as held:
        watch = held.run(faults, request.config.getoption("--seed", 1))
        states = {name: watch.records[name].state for name in held.names}
        wrong = [
            *watch.contradictions,
            *(f"{name} is {state}" for name, state in states.items() if state != "done"),
            *(f"the night has left {left}" for left in held.leaks()),
            *(f"no run was started on {host[:8]}, which joined" for host in held.idle()),
            *(f"the night ended before {name}" for name in held.not_struck),
            *held.differences(tmp_path, [name for name, state in states.items() if state == "done"]),
        ]
        assert not wrong, "\n".join([*held.log, *wrong])
        assert watch.polls > 10
        broken = watch.records[BROKEN]
        assert broken.state == "failed"
        assert broken.error is not None
        assert "0.wav" in f"{broken.error}"
