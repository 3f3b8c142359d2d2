from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from rave_dist.errors import ClusterError, MissingKeyError, ModelNotFoundError
from rave_dist.serving.app import run as serve_store
from rave_dist.serving.jobs import read_job
from rave_dist.serving.listing import Listing
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
        store.write_json(f"models/{name}/latest.json", {"version": card.version})

    return publish


def test_a_burst_asks_the_store_once(run: Any, publish: Any, tmp_path: Any) -> None:
    store = CountingStore(str(tmp_path))
    publish(store, "rebana")

    async def burst() -> None:
        listing = Listing(store, seconds=60)
        cards = await asyncio.gather(*(listing.find("rebana") for _ in range(50)))
        assert {card.reference for card in cards} == {"rebana@aaa"}

    run(burst())
    assert store.reads == 2, "latest.json and card.json"


def test_new_models_appear_and_errors_are_not_kept(run: Any, publish: Any, local_store: Store) -> None:
    async def grow() -> None:
        listing = Listing(local_store, seconds=0.05)
        assert await listing.models() == []
        with pytest.raises(ModelNotFoundError):
            await listing.find("rebana")
        publish(local_store, "rebana")
        assert (await listing.find("rebana")).name == "rebana"
        await asyncio.sleep(0.06)
        assert [card.name for card in await listing.models()] == ["rebana"]

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
    for job_id in ("../secret", "..", "", "a/b"):
        with pytest.raises(MissingKeyError):
            read_job(local_store, job_id)


def test_job_survives_the_store(local_store: Store) -> None:
    job = Job.of(JobRequest(model="rebana", inputs=("/a",), output="/b"), model="rebana@aaa")
    local_store.write_json(job.key, job.to_json())
    assert read_job(local_store, job.id) == job
