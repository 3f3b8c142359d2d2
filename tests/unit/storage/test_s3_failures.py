"""A server that fails for a while is asked again, a bounded number of times; what it did not say is found out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rave_dist.errors import StoreError, StoreUnavailableError
from rave_dist.storage.store import Store
from tests.conftest import BUCKET
from tests.failing_server import FailingServer


@pytest.fixture
def server(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    with FailingServer(s3_server).running() as failing:
        monkeypatch.setenv("AWS_ENDPOINT_URL", failing.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        yield failing


@pytest.fixture
def store(server: FailingServer) -> Store:
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}")


def test_two_refusals_are_survived_by_every_operation(server: FailingServer, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"file")
    store.write_bytes("k", b"v")
    for name, operation in {
        "write": lambda: store.write_bytes("k", b"v"),
        "claim": lambda: store.claim("claimed", b"mine"),
        "read": lambda: store.read_bytes("k"),
        "stat": lambda: store.stat("k"),
        "list": lambda: list(store.list()),
        "upload": lambda: store.upload(source, "file"),
        "download": lambda: store.download("k", tmp_path / "got"),
        "delete": lambda: store.delete("file"),
        "arrow": lambda: store.filesystem("k")[0].open_input_file(store.filesystem("k")[1]).read(),
    }.items():
        server.fail("503", times=2)
        operation()
        assert len(server.requests) >= 3, name
    assert {entry.key for entry in store.list()} == {"k", "claimed"}


def test_refusals_without_end_are_an_error_after_the_stated_number(server: FailingServer, store: Store) -> None:
    server.fail("503", times=1000)
    with pytest.raises(StoreUnavailableError) as refused:
        store.read_bytes("k")
    assert len(server.requests) == 3
    assert "run the same command again" in refused.value.fix


def test_a_server_that_is_away_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # no server listens there
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = Store(f"s3://{BUCKET}/away")
    for operation in (
        lambda: store.read_bytes("k"),
        lambda: store.write_bytes("k", b"v"),
        lambda: list(store.list()),
        lambda: store.download("k", tmp_path / "k"),
    ):
        with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:1 does not respond") as refused:
            operation()
        assert "run the same command again" in refused.value.fix


def test_bodies_that_always_end_early_are_an_error(server: FailingServer, store: Store, tmp_path: Path) -> None:
    store.write_bytes("k", bytes(range(256)) * 4000)
    for operation in (lambda: store.read_bytes("k"), lambda: store.download("k", tmp_path / "k")):
        server.fail("short body", times=1000, only=lambda request: request.startswith("GET"))
        with pytest.raises(StoreUnavailableError):
            operation()
    assert not list(tmp_path.iterdir())


def test_a_body_that_ends_early_is_read_again(server: FailingServer, store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    store.write_bytes("k", data)
    server.fail("short body", times=2)
    assert store.read_bytes("k") == data
    server.fail("short body", times=2, only=lambda request: request.startswith("GET"))
    assert store.download("k", tmp_path / "k").read_bytes() == data
    server.fail("short body", times=1000)
    with pytest.raises(StoreError):
        store.read_bytes("k")


def test_the_winner_of_a_claim_knows_it_although_the_answer_was_lost(server: FailingServer, store: Store) -> None:
    server.fail("lost answer", times=1)
    assert store.claim("k", b"mine") is True
    assert store.read_bytes("k") == b"mine"
    server.fail("lost answer", times=1)
    assert store.claim("k", b"theirs") is False
    assert store.read_bytes("k") == b"mine"


def test_a_conflict_without_a_winner_is_asked_again(server: FailingServer, store: Store) -> None:
    server.fail("409", times=2)
    assert store.claim("k", b"mine") is True
    server.fail("409", times=1000)
    with pytest.raises(StoreError):
        store.claim("other", b"mine")
    server.fail("409", times=0)
    assert not store.exists("other")
