"""One command at a time works on a library: with real processes, on a folder and on S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rave_dist import leases
from rave_dist.errors import InUseError
from rave_dist.leases import hold_library, hold_store, library_holder
from rave_dist.records import LeaseRecord, RunRecord, library_lease
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import Heartbeat

HOLD = """
import sys, time
from rave_dist import signals
from rave_dist.leases import hold_library
from rave_dist.storage.store import Store
signals.install()
try:
    with hold_library(Store(sys.argv[1]), "band", "train"):
        print("held", flush=True)
        sys.stdin.readline()
except KeyboardInterrupt as stop:
    sys.exit(signals.exit_code(stop))
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Store], subprocess.Popen[str]]]:
    """Starts processes that hold the lease of the library ``band`` until they read a line."""
    started = []

    def start(store: Store) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, store.uri]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _key(number: int) -> str:
    return f"{library_lease('band')}/{number:08d}.json"


def _elsewhere(store: Store, number: int = 1, *, seconds_ago: float = 0.0) -> LeaseRecord:
    """A lease of a process on another machine."""
    beat = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
    fields = {"command": "run", "user": "ada", "host": "studio", "machine": "another", "process": 7, "started": "1"}
    record = LeaseRecord.model_validate({**fields, "since": beat, "beat": beat})
    record.save(store, _key(number))
    return record


def test_a_second_command_is_told_who_is_at_work(any_store: Store, hold: Callable[[Store], subprocess.Popen[str]]) -> None:
    first = hold(any_store)
    with pytest.raises(InUseError) as refused, hold_library(any_store, "band", "run"):
        pytest.fail("two commands at once")
    assert "rave-dist train (" in refused.value.what
    assert f"process {first.pid}, since 20" in refused.value.what
    assert f"kill {first.pid}" in refused.value.fix
    holder = library_holder(any_store, "band")
    assert holder is not None
    assert (holder.process, holder.command) == (first.pid, "train")
    with hold_library(any_store, "orchestra", "run"):
        assert library_holder(any_store, "orchestra") is not None

    first.communicate("end\n")
    assert first.returncode == 0
    assert library_holder(any_store, "band") is None
    with hold_library(any_store, "band", "run"):
        holder = library_holder(any_store, "band")
        assert holder is not None
        assert holder.process == os.getpid()
    assert [entry.key for entry in any_store.list(library_lease("band"))] == [_key(2)]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["kill", "term", "int"]
)
def test_a_dead_holder_on_this_machine_frees_the_library_at_once(
    number: int, code: int, local_store: Store, hold: Callable[[Store], subprocess.Popen[str]]
) -> None:
    first = hold(local_store)
    first.send_signal(number)
    first.communicate()
    assert first.returncode == code
    assert LeaseRecord.load(local_store, _key(1)).released == (number != signal.SIGKILL)
    assert library_holder(local_store, "band") is None
    second = hold(local_store)
    holder = library_holder(local_store, "band")
    assert holder is not None
    assert holder.process == second.pid


def test_a_zombie_and_a_process_number_in_use_again_are_dead(
    local_store: Store, hold: Callable[[Store], subprocess.Popen[str]]
) -> None:
    first = hold(local_store)
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the list of processes
    assert library_holder(local_store, "band") is None
    second = hold(local_store)
    record = LeaseRecord.load(local_store, _key(2))
    assert library_holder(local_store, "band") == record
    record.model_copy(update={"started": "1"}).save(local_store, _key(2))
    assert library_holder(local_store, "band") is None
    assert second.poll() is None


def test_a_lease_that_a_store_did_not_let_go_of_is_free_for_the_same_process(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with hold_library(store, "band", "train"):
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").touch()  # a file where the folder was: every write fails
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    assert not LeaseRecord.load(store, _key(1)).released
    assert library_holder(store, "band") is None
    with hold_library(store, "band", "train"):
        assert library_holder(store, "band") is not None


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.2)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("seconds_ago", [200.0, -10_000_000.0], ids=["silent", "clock of the future"])
def test_a_holder_on_another_machine_is_dead_if_it_gives_no_sign_while_it_is_watched(
    seconds_ago: float, any_store: Store
) -> None:
    _elsewhere(any_store, seconds_ago=seconds_ago)
    assert library_holder(any_store, "band") is None
    said: list[str] = []
    with hold_library(any_store, "band", "train", say=said.append):
        pass
    assert ["waiting for a sign of life" in said[0], "is taken over" in said[1]] == [True, True]


@pytest.mark.usefixtures("fast")
def test_a_holder_on_another_machine_that_is_alive_keeps_its_lease(any_store: Store) -> None:
    _elsewhere(any_store, seconds_ago=60)
    with pytest.raises(InUseError, match="ada on studio, process 7") as refused, hold_library(any_store, "band", "train"):
        pass
    assert "kill 7 on studio" in refused.value.fix

    # Its clock is wrong by an hour, and it beats.
    _elsewhere(any_store, seconds_ago=3600)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            _elsewhere(any_store, seconds_ago=3599)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InUseError, match="ada on studio"), hold_library(any_store, "band", "train"):
            pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.usefixtures("fast")
def test_a_damaged_lease_is_watched_and_taken_over(any_store: Store) -> None:
    any_store.write_bytes(_key(3), b'{"command":"tra')
    assert library_holder(any_store, "band") is None
    said: list[str] = []
    with hold_library(any_store, "band", "train", say=said.append):
        assert [entry.key for entry in any_store.list(library_lease("band"))] == [_key(4)]
    assert said[0] == "waiting for a sign of life of a command whose lease is damaged"


@pytest.mark.usefixtures("fast")
def test_the_whole_store_is_not_taken_from_a_holder_whose_clock_is_wrong(any_store: Store) -> None:
    """By this machine's clock it is silent, so it is watched, as a holder of the same lease is."""
    ended = threading.Event()

    def beat() -> None:
        seconds = 0
        while not ended.wait(0.05):
            seconds += 1
            _elsewhere(any_store, seconds_ago=seconds - 7200)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        while not list(any_store.list(library_lease("band"))):
            time.sleep(0.01)
        with pytest.raises(InUseError, match="the library band is in use"), hold_store(any_store, "prune"):
            pass
    finally:
        ended.set()
        thread.join()
    with hold_store(any_store, "prune"):
        pass


@pytest.mark.usefixtures("fast")
def test_a_holder_whose_lease_was_taken_over_stops_and_leaves_the_new_one_alone(local_store: Store) -> None:
    theirs: list[LeaseRecord] = []

    def work() -> None:
        with hold_library(local_store, "band", "train"):
            theirs.append(_elsewhere(local_store, 2))
            time.sleep(60)  # ends by an interrupt

    with pytest.raises(InUseError, match="took over the library band"):
        work()
    assert [LeaseRecord.load(local_store, _key(2))] == theirs


def test_of_many_that_take_over_a_dead_holders_lease_one_gets_it(any_store: Store) -> None:
    record = _elsewhere(any_store)
    record.model_copy(update={"released": True}).save(any_store, _key(1))
    held, refused, everyone = [], [], threading.Barrier(6)

    def take(number: int) -> None:
        everyone.wait()
        try:
            with hold_library(any_store, "band", f"train-{number}"):
                held.append(number)
                everyone.wait()  # the others are refused while it is held
        except InUseError:
            refused.append(number)
            everyone.wait()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def test_a_command_on_the_whole_store_and_those_on_libraries_exclude_each_other(any_store: Store) -> None:
    of_library = hold_library(any_store, "band", "train")
    refused = pytest.raises(InUseError, match="this store is in use by rave-dist prune")
    with hold_store(any_store, "prune"), refused, of_library:
        pass
    of_store = hold_store(any_store, "prune")
    refused = pytest.raises(InUseError, match="the library band is in use by rave-dist train")
    with hold_library(any_store, "band", "train"), refused, of_store:
        pass
    with hold_store(any_store, "prune"):
        pass


MANIFEST = "name: band\nstore: ./store\ninstruments: {plucks: {sources: [plucks.wav]}}\n"


@pytest.mark.slow
def test_the_commands_refuse_and_status_knows_at_once_that_a_killed_one_is_gone(tmp_path: Path) -> None:
    """The first command is killed while it checks: no Ray is started here."""
    import soundfile

    soundfile.write(tmp_path / "plucks.wav", [0.1] * 44100 * 8, 44100)
    (tmp_path / "band.yaml").write_text(MANIFEST)
    store = Store(str(tmp_path / "store"))

    def command(name: str) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", "rave_dist", name, str(tmp_path / "band.yaml"), "--json"]
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = command("run")
    try:
        while library_holder(store, "band") is None:
            assert first.poll() is None
            time.sleep(0.05)
        for name in ("run", "train", "ingest"):
            second = command(name)
            _, error = second.communicate()
            assert second.returncode == 1
            assert "rave-dist run (" in error
            assert f"process {first.pid}" in error
        with Heartbeat(store, RunRecord(library="band", instrument="plucks", run_id="abc", dataset="d", state="running")):
            told, _ = command("status").communicate()
        assert f'"process": {first.pid}' in told
        assert '"state": "running"' in told
    finally:
        first.kill()
        first.communicate()
    told, _ = command("status").communicate()
    assert '"in_use": null' in told
    assert '"state": "waiting"' in told
