"""Faults in the middle of a library's night on four hosts, by hand: see `tests.cluster.night`."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_systems import can_mount_memory

from tests.cluster.night import BROKEN, night
from tests.cluster.night_faults import FAULTS


def test_every_instrument_ends_published_as_without_faults(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    instruments = request.config.getoption("--night", 0)
    if not instruments:
        pytest.skip("a night takes minutes of CPU time: --night 12, or a part: --night 2 --faults 'a host dies'")
    faults = {name: FAULTS[name] for name in (request.config.getoption("--faults", "") or ", ".join(FAULTS)).split(", ")}
    if not can_mount_memory() and faults.pop("a disk is full", None):
        print("left out: a disk is full, because mounting a small one needs root")
    late = "a host joins" in faults
    with night(request.getfixturevalue("s3_server"), instruments, steps=120, late=late) as held:
        watch = held.run(faults, request.config.getoption("--seed", 1))
        left = held.leaks()
        assert not watch.contradictions, "\n".join([*held.log, *watch.contradictions])
        assert watch.polls > 10
        assert {name: watch.records[name].state for name in held.names} == dict.fromkeys(held.names, "done")
        broken = watch.records[BROKEN]
        assert broken.state == "failed"
        assert broken.error is not None
        assert "0.wav" in f"{broken.error}"
        assert not left, left
        assert not held.idle(), f"no run was started on hosts that joined: {held.idle()}"
        assert held.differences(tmp_path) == []
        assert not held.not_struck, f"the night ended before these: {held.not_struck}"
