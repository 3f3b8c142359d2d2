"""Requests to a store: how many a command makes, how many at once, and how many in a second."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from rave_dist import pipeline
from rave_dist.audio.io.sources import list_sources
from rave_dist.library.manifest import Library
from rave_dist.records import RunRecord, now, run_record_key
from rave_dist.storage.local import LocalFolder
from rave_dist.storage.parallel import Pace
from rave_dist.storage.schemes import SCHEMES
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_live_records, record_of, write_record
from tests.conftest import BUCKET
from tests.failing_server import FailingServer
from tests.sample_records import dataset_manifest

AT_ONCE = 4


def test_requests_come_at_a_limited_rate_and_none_are_saved_up() -> None:
    time, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(400, clock=lambda: time[0], sleep=sleep)
    for _ in range(401):
        pace.wait()
    assert len(slept) == 400
    assert slept[-1] == pytest.approx(1.0), "the last of 401 at the same moment waits for a second"
    time[0] += 3600
    slept.clear()
    for _ in range(3):
        pace.wait()
    assert slept == pytest.approx([1 / 400, 2 / 400])


@pytest.fixture
def server(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    with FailingServer(s3_server).running() as counting:
        monkeypatch.setenv("AWS_ENDPOINT_URL", counting.address)
        yield counting


def test_a_prefix_is_asked_for_twice_and_a_file_once(server: FailingServer) -> None:
    address = f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
    for number in range(3):
        Store(address).write_bytes(f"drums/{number}.wav", b"sound")
    for pattern, methods, found in (("drums", ["HEAD", "GET"], 3), ("drums/1.wav", ["HEAD"], 1)):
        server.requests.clear()
        assert len(list_sources([f"{address}/{pattern}"])) == found
        assert [request.split()[0] for request in server.requests] == methods


class Together(LocalFolder):
    """A folder in which the reads of some keys wait until `AT_ONCE` of them have begun; ``reads`` are those of all."""

    barriers: ClassVar[dict[str, threading.Barrier]] = {}
    reads: ClassVar[list[str]] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        for part, barrier in self.barriers.items():
            if part in key:
                barrier.wait(timeout=20)
        return super().read(key)


SCHEMES.register("together", lambda name, prefix: Together(Path("/", prefix)))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Four instruments that have begun to train, in such a folder."""
    names = [f"i{number}" for number in range(AT_ONCE)]
    (tmp_path / "none.wav").write_bytes(b"no sound")
    instruments = {name: {"sources": [str(tmp_path / "none.wav")]} for name in names}
    document = {"name": "band", "store": f"together://disk{tmp_path}/store", "instruments": instruments}
    library = Library.from_dict(document, folder=tmp_path)
    for name in names:
        dataset = dataset_manifest(instrument=name)
        dataset.save(library.store, dataset.folder.manifest)
        spec = library.training_spec(name, dataset=dataset.id)
        spec.save(library.store, spec.folder.spec)
        write_record(library.store, record_of(library.store, spec))
    Together.reads.clear()
    yield library
    Together.barriers.clear()


def test_status_asks_for_several_instruments_at_once(library: Library) -> None:
    Together.barriers.update({part: threading.Barrier(AT_ONCE) for part in ("record.json", "spec.json", "manifest.json")})
    assert len(pipeline.status(library)) == AT_ONCE
    assert len(Together.reads) == 3 * AT_ONCE


def test_only_silent_runs_are_watched(library: Library) -> None:
    silent = (datetime.now(UTC) - timedelta(seconds=30)).isoformat(timespec="seconds")
    for name, since in (("i0", now()), ("i1", silent)):
        record = RunRecord.load(library.store, run_record_key("band", name))
        record.model_copy(update={"state": "running", "updated_at": since}).save(library.store, record.key)
    Together.reads.clear()
    records = read_live_records(library.store, "band", list(library.instruments), watch_seconds=0.5)
    assert [record.state for record in records] == ["running", "waiting", "waiting", "waiting"]
    assert all("/i1/" in key for key in Together.reads[AT_ONCE:])
