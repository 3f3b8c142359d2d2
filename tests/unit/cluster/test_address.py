"""What RAY_ADDRESS may say, and how one finds out that nobody answers there; with real sockets, without Ray."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rave_dist.cluster.address import Address, last_started, parse, probe
from rave_dist.errors import ClusterError


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that gives every connection to ``answer``; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", Address("local", "local")),
        ("auto", Address("auto", "auto")),
        ("10.0.0.5:6379", Address("10.0.0.5:6379", "cluster", "10.0.0.5", 6379)),
        ("[::1]:6379", Address("[::1]:6379", "cluster", "::1", 6379)),
        ("ray://head:10002", Address("ray://head:10002", "cluster", "head", 10002)),
        ("ray://head", Address("ray://head", "cluster", "head", 10001)),
        ("ray://head:10001/namespace", Address("ray://head:10001/namespace", "cluster", "head", 10001)),
        ("anyscale://project/cluster", Address("anyscale://project/cluster", "other")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["head", "10.0.0.5", "head:", "head:port", "head:0", "head:70000", ":6379", "ray://head:x"])
def test_an_address_without_a_port_is_refused(text: str) -> None:
    with pytest.raises(ClusterError) as refused:
        parse(text)
    assert refused.value.where == text
    assert "RAY_ADDRESS=10.0.0.5:6379" in refused.value.fix


def test_nobody_listens() -> None:
    with socket.socket() as bound:  # taken, so that nobody else listens there
        bound.bind(("127.0.0.1", 0))
        text = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"connection refused") as refused:
            probe(parse(text))
    assert refused.value.where == text
    assert "unset it" in refused.value.fix


def test_another_program_listens() -> None:
    def speak_http_1(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with listening(speak_http_1) as port, pytest.raises(ClusterError, match="another program listens there"):
        probe(parse(f"127.0.0.1:{port}"))


def test_what_listens_hangs() -> None:
    """A stopped process: its connections are made by the system, and nothing ever comes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match="no answer within 1 s"),
    ):
        probe(parse(f"127.0.0.1:{server.getsockname()[1]}"), seconds=1)


def test_a_server_of_grpc_answers() -> None:
    import grpc

    server = grpc.server(None)  # type: ignore[arg-type]  # it is never called
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        probe(parse(f"127.0.0.1:{port}"))
        probe(parse(f"ray://127.0.0.1:{port}"))
    finally:
        server.stop(None)


def test_the_ray_that_auto_means(tmp_path: Path) -> None:
    assert last_started(tmp_path) is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.5:6379\n")
    assert last_started(tmp_path) == Address("10.0.0.5:6379", "cluster", "10.0.0.5", 6379)
