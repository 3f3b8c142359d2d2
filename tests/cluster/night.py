"""A library overnight on a cluster, with faults at moments that a seed draws: all instruments end published, as without faults.

``pytest tests/cluster/test_faults.py -s --night 12 --seed 1 --timeout 7200`` runs a whole night, ``--night 2 --faults
"a process is killed, a host dies"`` a part of one. The faults are in `tests.cluster.night_faults`.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import yaml
from failing_server import FailingServer
from file_systems import can_mount_memory, mount_memory, unmount
from ports import free_ports

from rave_dist.library.manifest import Library, load_library
from rave_dist.records import RunRecord
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records, record_of, write_record
from tests.cluster.night_watch import OF_RUNS, Watch, is_alive, title
from tests.cluster.undisturbed import are_equal_weights, has_undisturbed_weights

RATE = 44100
HOSTS = 4
BROKEN = "broken"
SOME_DONE, MOST_DONE = 0.1, 0.7
"""Faults strike between these parts of all steps, each in its own part of this range."""

_OF_RAVE_DIST = (*OF_RUNS, "ray::train_together", "ray::TrainController", "ray::publish_one")
_DISK_BYTES = 256 << 20
_GONE_SECONDS = 90.0  # Ray ends the tasks of a dead command


class NotStruckError(Exception):
    """The night ended before a fault could strike."""


class Night:
    """Hosts, a library, and the command at work on it.

    Args:
        folder: for everything that is written on this machine.
        s3: address of the S3 server.
        instruments: how many; another one has a broken recording.
        steps: of each.
        cpus: of each host.
        outage_seconds: how long S3 refuses all requests.
    """

    def __init__(self, folder: Path, s3: str, *, instruments: int, steps: int, cpus: int, outage_seconds: float) -> None:
        self.folder, self.cpus, self.outage_seconds = folder, cpus, outage_seconds
        self.log: list[str] = []
        self.not_struck: list[str] = []
        self.disks: dict[str, Path] = {}  # of the hosts
        self.late: dict[str, str] = {}  # the hosts that joined during the night, and their disks
        self.address = ""
        self.commands = 0
        self.may_end: set[int] = {3}  # exit codes of the command; the broken recording is a partial failure
        self.random = random.Random(0)
        self.s3 = FailingServer(s3)
        self.names = [f"drum{number:02d}" for number in range(instruments)]
        self.pairs = self.names[-1:] if instruments >= HOSTS else []  # trained by two workers each, for most of the night
        self.library = self._write_library(steps)
        self.environment = {
            **os.environ,
            "RAY_TMPDIR": str(self.folder),
            "AWS_ENDPOINT_URL": self.s3.address,
            "RAY_raylet_start_wait_time_s": "120",
            "AWS_MAX_ATTEMPTS": "3",  # so that runs notice when S3 refuses
        }
        self.hosts = self._start_program()
        self.command: subprocess.Popen[bytes] | None = None

    def _write_library(self, steps: int) -> Library:
        store = Store(f"s3://rave-dist-tests/night-{time.time_ns()}")
        for number, name in enumerate(self.names):
            time_axis = np.arange(6 * RATE)
            sound = np.random.default_rng(number).uniform(-0.5, 0.5, 6 * RATE) * (time_axis % (9000 + 300 * number) < 2000)
            recording = io.BytesIO()
            soundfile.write(recording, sound, RATE, format="WAV")
            store.write_bytes(f"recordings/{name}/0.wav", recording.getvalue())
        store.write_bytes(f"recordings/{BROKEN}/0.wav", b"RIFF" + bytes(range(256)) * 40)
        manifest = {
            "name": "night",
            "store": store.uri,
            "max_concurrent": HOSTS,
            "defaults": {
                **{"config": "v2_tiny", "override": {"CAPACITY": 4}, "window": 40960, "batch": 1},
                **{"budget": {"steps": steps}, "checkpoint": {"steps": 4}},
            },
            "instruments": {
                name: {
                    **{"sources": [f"{store.uri}/recordings/{name}"], "seed": number},
                    **({"workers": 2, "batch": 2, "budget": {"steps": 3 * steps}} if name in self.pairs else {}),
                }
                for number, name in enumerate([*self.names, BROKEN])
            },
        }
        (self.folder / "library.yaml").write_text(yaml.safe_dump(manifest))
        return load_library(self.folder / "library.yaml")

    def _start_program(self) -> subprocess.Popen[str]:
        program = [sys.executable, str(Path(__file__).with_name("night_hosts.py"))]
        return subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, cwd=self.folder, text=True
        )

    def ask(self, **order: Any) -> Any:
        """Gives an order to the program of the hosts, see there; returns its answer."""
        assert self.hosts.stdin is not None
        assert self.hosts.stdout is not None
        self.hosts.stdin.write(json.dumps(order) + "\n")
        self.hosts.stdin.flush()
        return json.loads(next(line for line in self.hosts.stdout if line.startswith("{")))

    def start_host(self) -> str:
        disk = Path(tempfile.mkdtemp(prefix="disk-", dir=self.folder))
        if can_mount_memory():
            mount_memory(disk, _DISK_BYTES)
        answer = self.ask(do="start", disk=str(disk), cpus=self.cpus, ports=free_ports(3))
        self.address = answer["address"]
        self.disks[answer["host"]] = disk
        return str(answer["host"])

    def end_host(self, host: str) -> None:
        """A whole host dies, and its disk with it."""
        self.ask(do="end", host=host)
        self._unmount(self.disks.pop(host))

    def _unmount(self, disk: Path) -> None:
        if can_mount_memory():
            unmount(disk)
        shutil.rmtree(disk, ignore_errors=True)

    def start_command(self) -> None:
        self.commands += 1
        with open(self.folder / f"command-{self.commands}", "wb") as log:
            self.command = subprocess.Popen(
                [sys.executable, "-m", "rave_dist", "run", str(self.folder / "library.yaml"), "--json"],
                env={**self.environment, "RAY_ADDRESS": self.address, "TMPDIR": str(self.disks_of_command)},
                stdout=log,
                stderr=log,
            )

    @property
    def disks_of_command(self) -> Path:
        place = self.folder / "command"
        place.mkdir(exist_ok=True)
        return place

    def exit_code(self) -> int | None:
        """Of the command; None while it runs."""
        return None if self.command is None else self.command.poll()

    def said(self) -> str:
        """The end of what the last command printed."""
        return (self.folder / f"command-{self.commands}").read_text(errors="replace")[-2000:]

    def say(self, line: str) -> None:
        self.log.append(f"{time.strftime('%H:%M:%S')} {line}")
        print(self.log[-1], file=sys.stderr, flush=True)

    def pick(self, choose: Callable[[RunRecord, psutil.Process], bool] = lambda record, process: True) -> Any:
        """A run in the middle of its training, and its process, at random; waits for one."""
        while True:
            training = [each for each in self.watch.training() if each[0].step < MOST_DONE * each[0].steps]
            found = [(record, process) for record, process in training if choose(record, process)]
            if found:
                return self.random.choice(sorted(found, key=lambda one: one[0].instrument))
            if self.exit_code() is not None:
                raise NotStruckError
            time.sleep(0.2)

    def pick_controller(self) -> tuple[str, psutil.Process]:
        """A run of several workers that trains, and the process of Ray Train that controls them; waits for one."""
        while True:
            training = [name for name in self.pairs if self.watch.is_training(name)]
            below = psutil.Process(self.hosts.pid).children(recursive=True) if training else []
            for process in below:
                if "TrainController" in title(process):
                    return training[0], process
            ended = all(name in self.watch.records and self.watch.records[name].state == "done" for name in self.pairs)
            if ended or self.exit_code() is not None:
                raise NotStruckError
            time.sleep(0.2)

    def pick_host(self) -> tuple[str, str]:
        """A host other than the head on which a run trains, and the run."""
        hosts = list(self.disks)[1:]
        record, process = self.pick(lambda record, process: self._host_of(process) in hosts)
        return self._host_of(process), record.instrument

    def _host_of(self, process: psutil.Process) -> str:
        disk = self.watch.places.get(process.pid)
        return next((host for host, own in self.disks.items() if str(own) == disk), "")

    def run(self, faults: Mapping[str, Callable[[Night], str]], seed: int) -> Watch:
        """One night with faults, which say what they struck; returns what was seen of it."""
        self.random.seed(seed)
        part = (MOST_DONE - SOME_DONE) / len(faults)
        moments = [SOME_DONE + part * (number + self.random.random()) for number in range(len(faults))]
        todo = list(zip(moments, self.random.sample(list(faults), len(faults)), strict=True))
        self.say(f"seed {seed}: " + ", ".join(f"{name} at {moment:.0%}" for moment, name in todo))
        with Watch(self.library, self.names, lambda: None if self.exit_code() is not None else 1) as self.watch:
            self.start_command()
            while True:
                if todo and self.watch.progress >= todo[0][0]:
                    self._strike(todo[0][1], faults[todo[0][1]])
                    del todo[0]
                if self.exit_code() is not None:
                    break
                time.sleep(0.5)
            self.say(f"the command ended with {self.exit_code()} at {self.watch.progress:.0%}")
            starts = [disk in self.late.values() for disk in self.watch.places.values()]
            self.say(f"{len(starts)} processes trained, {sum(starts)} of them on hosts that joined")
            self.not_struck += [name for _, name in todo]
            if self.exit_code() not in self.may_end:
                self.watch.contradictions.append(f"it ended with {self.exit_code()}\n{self.said()}")
            time.sleep(2)  # the last records
        return self.watch

    def _strike(self, name: str, fault: Callable[[Night], str]) -> None:
        began = time.monotonic()
        try:
            struck = fault(self)
        except NotStruckError:
            self.not_struck.append(name)
            struck = "not struck"
        self.say(f"{name} at {self.watch.progress:.0%}: {struck} ({time.monotonic() - began:.0f} s)")

    def idle(self) -> list[str]:
        """The hosts that joined late, are still there, and never had a run."""
        used = set(self.watch.places.values())
        return [host for host, disk in self.late.items() if host in self.disks and disk not in used]

    def leaks(self) -> list[str]:
        """Processes, CPUs and folders that the night left behind; waits until Ray has tidied up."""
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            below = [process for process in psutil.Process(self.hosts.pid).children(recursive=True) if is_alive(process)]
            tasks = [process for process in below if title(process).startswith(_OF_RAVE_DIST)]
            tasks += [process for workers in self.watch.workers.values() for process in workers.values() if is_alive(process)]
            found = [f"process {process.pid} {title(process)}" for process in tasks]
            room, raylets = self.ask(do="room"), sum(title(process).endswith("raylet") for process in below)
            if room["free"] != room["cpus"]:
                found.append(f"{room['cpus'] - room['free']} CPUs are held")
            if room["groups"]:
                found.append(f"{room['groups']} placement groups")
            if (room["hosts"], raylets) != (len(self.disks), len(self.disks)):
                found.append(f"{room['hosts']} hosts and {raylets} of their processes instead of {len(self.disks)}")
            for place in (*self.disks.values(), self.disks_of_command):
                found += [f"folder {path}" for path in place.glob("rave-dist-*")]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def differences(self, folder: Path, names: Sequence[str]) -> list[str]:
        """The instruments whose weights are not those of an undisturbed training in this process."""
        records = [self.watch.records[name] for name in names if name not in self.pairs]
        other = [record for record in records if not has_undisturbed_weights(self.library.store, record, folder)]
        found = [f"{record.instrument} has other weights" for record in other]
        found += [
            f"{name} has other weights" for name in self.pairs if name in names and not self._has_calm_weights(name, folder)
        ]
        self.say(f"{len(names)} instruments trained again without faults: {len(found)} have other weights")
        return found

    def _has_calm_weights(self, name: str, folder: Path) -> bool:
        """Whether a run of several workers has bitwise the weights of one that is alone on the hosts that are left.

        The calm run has a record as if it had begun with as many threads: with another number it would round differently.
        """
        ours, store = self.watch.records[name], self.library.store
        calm = yaml.safe_load((self.folder / "library.yaml").read_text())
        calm |= {"name": "calm", "instruments": {name: calm["instruments"][name]}}
        (folder / "calm.yaml").write_text(yaml.safe_dump(calm))
        assert ours.dataset is not None
        begun = record_of(store, load_library(folder / "calm.yaml").training_spec(name, dataset=ours.dataset))
        write_record(store, begun.model_copy(update={"threads": ours.threads, "workers": ours.workers}))
        command = [sys.executable, "-m", "rave_dist", "run", str(folder / "calm.yaml"), "--json"]
        subprocess.run(command, env={**self.environment, "RAY_ADDRESS": self.address}, stdout=subprocess.DEVNULL, check=True)
        (theirs,) = read_records(store, "calm", [name])
        assert (theirs.run_id, theirs.threads) == (begun.run_id, ours.threads)
        return are_equal_weights((store, ours.folder.weights), (store, theirs.folder.weights), folder)

    def close(self) -> None:
        assert self.hosts.stdin is not None
        assert self.hosts.stdout is not None
        if self.command is not None:
            self.command.kill()
            self.command.wait()
        self.hosts.stdin.close()
        try:
            self.hosts.wait(90)
        except subprocess.TimeoutExpired:
            self.hosts.kill()
            self.hosts.wait()
        self.hosts.stdout.close()
        for disk in self.folder.glob("disk-*"):
            if disk.is_mount():
                unmount(disk)


@contextmanager
def night(s3: str, instruments: int, steps: int, *, late: bool, outage_seconds: float = 60.0) -> Iterator[Night]:
    """A night that has not begun yet; if a host comes ``late``, those that are there do not suffice for all runs at once."""
    folder = Path(tempfile.mkdtemp(prefix="rd-"))  # Ray's sockets need a short path
    (folder / "ray").mkdir()
    small = instruments < HOSTS
    try:
        made = Night(folder, s3, instruments=instruments, steps=steps, cpus=1 if small else 2, outage_seconds=outage_seconds)
        with made.s3.running():
            try:
                for _ in range(1 if small and late else HOSTS - late):
                    made.start_host()
                yield made
            finally:
                made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
