"""The faults of a night, by name: each function strikes and says what it struck."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable

import psutil

from rave_dist.cluster.notices import Notice
from rave_dist.cluster.spot import LocalNode, drain
from rave_dist.records import RunRecord, checkpoint_steps
from tests.cluster.night import Night

Fault = Callable[[Night], str]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


@fault
def a_process_is_killed(night: Night) -> str:
    record, process = night.pick()
    process.kill()
    return f"{record.instrument} at step {record.step}"


@fault
def a_controller_is_killed(night: Night) -> str:
    name, process = night.pick_controller()
    process.kill()
    return f"that of {name}"


@fault
def the_command_is_killed(night: Night) -> str:
    assert night.command is not None
    night.command.kill()
    night.command.wait()
    time.sleep(night.random.uniform(0, 20))
    night.start_command()
    return "and started again"


@fault
def a_host_dies(night: Night) -> str:
    host, name = night.pick_host()
    night.end_host(host)
    return f"{host[:8]} with {name}"


@fault
def a_host_is_drained(night: Night) -> str:
    host, name = night.pick_host()
    seconds = 60.0
    drain(LocalNode(host, night.address, psutil.Process()), Notice("spot", time.time() + seconds))
    time.sleep(seconds)
    night.end_host(host)
    return f"{host[:8]} with {name}, dead {seconds:.0f} s later"


@fault
def a_host_joins(night: Night) -> str:
    host = night.start_host()
    night.late[host] = str(night.disks[host])
    return host[:8]


@fault
def S3_refuses(night: Night) -> str:
    night.pick()  # a command that has just begun would end with an error that asks for the same command
    night.s3.fail("503", times=sys.maxsize)
    time.sleep(night.outage_seconds)
    night.s3.fail("503", times=0)
    return f"for {night.outage_seconds:.0f} s"


@fault
def the_newest_checkpoint_is_damaged(night: Night) -> str:
    store = night.library.store

    def steps_of(record: RunRecord) -> list[int]:
        folder = record.folder.checkpoints
        return sorted(checkpoint_steps((entry.key for entry in store.list(folder)), folder))

    while True:
        record, process = night.pick(lambda record, process: len(steps_of(record)) >= 2)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # so that it writes no newer one
            steps = steps_of(record)
            if len(steps) >= 2:
                key = f"{record.folder.checkpoints}/step-{steps[-1]:09d}.pt"
                data = bytearray(store.read_bytes(key))
                data[len(data) // 2] ^= 1
                store.write_bytes(key, bytes(data))
                process.kill()
                return f"{record.instrument} at step {steps[-1]}, then its process is killed"
            process.resume()


@fault
def a_disk_is_full(night: Night) -> str:
    host, name = night.pick_host()
    free = shutil.disk_usage(night.disks[host]).free
    with open(night.disks[host] / "full", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (64 << 10))
    return f"{host[:8]} with {name}"


@fault
def the_head_restarts(night: Night) -> str:
    """All hosts of the old head lose it and end by themselves; as many new ones join."""
    assert night.command is not None
    old = list(night.disks)
    night.end_host(old[0])
    for _ in old:
        night.start_host()
    code = night.command.wait(300)
    said = night.said().strip().splitlines()[-1:]
    for host in old[1:]:  # they are no part of the cluster any more
        night._unmount(night.disks.pop(host))
    night.start_command()
    return f"the command ended with {code}: {said}"
