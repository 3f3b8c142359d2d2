from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rave_dist.errors import ClusterError, MissingKeyError, ModelNotFoundError, StoreError
from rave_dist.serving.app import run as serve_store
from rave_dist.serving.jobs import list_jobs, read_job
from rave_dist.serving.listing import Listing, Models
from rave_dist.serving.models import models_that_fit
from rave_dist.serving.schema import Job, JobRequest
from rave_dist.storage.store import Store


class CountingStore(Store):
    reads = 0

    def read_json(self, key: str) -> Any:
        self.reads += 1
        return super().read_json(key)


@pytest.fixture
def publish(backend: Any) -> Any:
    def publish(store: Store, name: str) -> None:
        card = next(card for card in backend.cards if card.name == name)
        card.save(store, card.folder.card)
        store.write_json(f"models/{name}/publications/00000001.json", {"version": card.version})

    return publish


def test_a_burst_asks_the_store_once(run: Any, publish: Any, tmp_path: Any) -> None:
    store = CountingStore(str(tmp_path))
    publish(store, "rebana")

    async def burst() -> None:
        listing = Listing(store, seconds=60)
        cards = await asyncio.gather(*(listing.find("rebana") for _ in range(50)))
        assert {card.reference for card in cards} == {"rebana@aaa"}

    run(burst())
    assert store.reads == 2, "the last publication and the card"


def test_new_models_appear_and_errors_are_not_kept(run: Any, publish: Any, local_store: Store) -> None:
    async def grow() -> None:
        Path(local_store.uri).mkdir()
        listing = Listing(local_store, seconds=0.05)
        assert await listing.models() == Models(())
        with pytest.raises(ModelNotFoundError):
            await listing.find("rebana")
        publish(local_store, "rebana")
        assert (await listing.find("rebana")).name == "rebana"
        await asyncio.sleep(0.06)
        assert [card.name for card in (await listing.models()).cards] == ["rebana"]

    run(grow())


def test_one_impatient_request_does_not_take_the_answer_from_others(run: Any, publish: Any, local_store: Store) -> None:
    publish(local_store, "rebana")

    async def two() -> str:
        listing = Listing(local_store)
        first, second = (asyncio.create_task(listing.find("rebana")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).name

    assert run(two()) == "rebana"


def test_invalid_cards_are_named_and_the_others_listed(run: Any, publish: Any, local_store: Store, backend: Any) -> None:
    publish(local_store, "rebana")
    publish(local_store, "kompang")
    local_store.write_bytes("models/broken/1/card.json", b"{not json")
    local_store.write_bytes("models/deep/1/card.json", b"[" * 100_000)
    local_store.write_json("models/short/1/card.json", {"name": "short"})
    good = backend.cards[0].to_json()
    local_store.write_json("models/evil/1/card.json", good | {"name": "../../evil"})
    local_store.write_json("models/Ωmega/1/card.json", good | {"name": "Ωmega", "version": "1"})
    local_store.write_json("models/large/1/card.json", good | {"name": "large", "version": "1", "credit": {"x": "y" * 2**20}})
    nested: list[Any] = []
    for _ in range(500):
        nested = [nested]
    local_store.write_json("models/nested/1/card.json", good | {"name": "nested", "version": "1", "override": {"A": nested}})
    local_store.write_bytes(
        "models/half/1/card.json", json.dumps(good | {"name": "half", "version": "1", "credit": {"x": "\ud800"}}).encode()
    )
    for name, value in (("nan", "NaN"), ("infinite", "Infinity"), ("huge", "1e999")):
        text = json.dumps(good | {"name": name, "version": "1", "seconds": "VALUE"}).replace('"VALUE"', value)
        local_store.write_bytes(f"models/{name}/1/card.json", text.encode())
    local_store.write_json("models/other/1/card.json", backend.cards[0].to_json())
    local_store.write_json("models/kompang/publications/00000001.json", {"version": "../../rebana/aaa"})

    async def ask() -> None:
        listing = Listing(local_store)
        found = await listing.models()
        assert [card.name for card in found.cards] == ["kompang", "rebana"]
        named = {problem.what.split("/models/")[1].split("/")[0] for problem in found.invalid}
        assert named == {
            "broken",
            "deep",
            "short",
            "evil",
            "other",
            "Ωmega",
            "large",
            "nested",
            "nan",
            "infinite",
            "huge",
            "half",
        }
        assert not any("Value error" in problem.what for problem in found.invalid)
        json.dumps([card.summary("") for card in found.cards], allow_nan=False).encode()
        assert all(problem.fix for problem in found.invalid)
        assert (await listing.find("kompang")).version == "bbb", "a pointer that is not valid is not followed"

    run(ask())


def test_store_that_is_gone_is_not_an_empty_one(run: Any, publish: Any, tmp_path: Any) -> None:
    store = Store(str(tmp_path / "store"))
    publish(store, "rebana")

    async def ask() -> None:
        listing = Listing(store, seconds=0)
        await listing.check()
        shutil.move(tmp_path / "store", tmp_path / "away")
        for question in (listing.check(), listing.models(), listing.find("rebana")):
            with pytest.raises(StoreError, match="there is no such folder"):
                await question
        with pytest.raises(StoreError, match="there is no such folder"):
            list_jobs(store)
        with pytest.raises(StoreError, match="there is no such folder") as gone:
            read_job(store, "0" * 12)
        assert not isinstance(gone.value, MissingKeyError), "which would be a 404"
        shutil.move(tmp_path / "away", tmp_path / "store")
        await listing.check()
        assert (await listing.find("rebana")).name == "rebana"

    run(ask())


def test_store_that_does_not_respond_is_said_so_whatever_else_waits(run: Any, tmp_path: Any) -> None:
    answer = threading.Event()

    class Hanging(Store):
        def check_exists(self) -> None:
            answer.wait()

    async def ask() -> None:
        listing = Listing(Hanging(str(tmp_path)))
        waiting = [asyncio.create_task(listing.find(f"model-{number}")) for number in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match=r"does not respond within 0\.05 seconds"):
            await listing.check(seconds=0.05)
        answer.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(ask())


def test_jobs_of_the_store_are_listed_without_records_that_are_not_valid(local_store: Store) -> None:
    requests = [JobRequest(model="rebana", inputs=("/a",), output=f"/b{number}") for number in range(3)]
    found = [Job.of(request, model="rebana@aaa") for request in requests]
    for number, job in enumerate(found):
        job.model_copy(update={"submitted_at": f"2026-11-0{number + 1}"}).save(local_store, job.key)
    local_store.write_bytes("jobs/broken.json", b"{")
    assert [job.output for job in list_jobs(local_store)] == ["/b2", "/b1", "/b0"]


@pytest.mark.parametrize(
    ("memory", "files", "expected"),
    [(8 << 30, [100 << 20], 20), (8 << 30, [100 << 20, 1 << 30], 2), (1 << 30, [1 << 30], 1), (8 << 30, [], 32)],
)
def test_cache_is_sized_by_the_largest_model(memory: float, files: list[int], expected: int) -> None:
    assert models_that_fit(memory, files) == expected


def test_taken_port_is_refused_before_ray_starts(local_store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port} cannot be used") as refused:
            serve_store(local_store, port=port)
    assert "--port" in refused.value.fix


def test_job_ids_are_never_paths(local_store: Store) -> None:
    local_store.write_json("secret.json", {})
    for job_id in ("../secret", "..", "", "a/b", "a" * 5000, "\0", "nosuchjob123", "٣" * 12):
        with pytest.raises(MissingKeyError):
            read_job(local_store, job_id)


def test_job_survives_the_store(local_store: Store) -> None:
    job = Job.of(JobRequest(model="rebana", inputs=("/a",), output="/b"), model="rebana@aaa")
    local_store.write_json(job.key, job.to_json())
    assert read_job(local_store, job.id) == job
