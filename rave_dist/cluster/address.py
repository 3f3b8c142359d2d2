"""What ``RAY_ADDRESS`` names, and whether a Ray answers there: asked without Ray, which waits for minutes."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from rave_dist.errors import ClusterError

PROBE_SECONDS: Final = 8.0
"""After so long, names that do not resolve included, an address is refused."""

_CONNECT_SECONDS = 3.0
_CLIENT_PORT = 10001
# What an HTTP/2 client says first, with empty settings, and the type of the frame with which any server answers (RFC 9113).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_FRAME_HEADER_BYTES = 9
_SETTINGS = 4

Kind = Literal["local", "auto", "cluster", "other"]


@dataclass(frozen=True)
class Address:
    """An address as given, its kind, and where to knock.

    ``local`` starts an embedded Ray, ``auto`` looks for one on this machine, ``cluster`` has a host and a port, ``other`` is
    for a plug-in of Ray.
    """

    text: str
    kind: Kind
    host: str = ""
    port: int = 0


def from_environment() -> Address:
    """The address that ``RAY_ADDRESS`` gives; ``local`` if it is unset or empty.

    Raises:
        ClusterError: it has no port, or one that is no number.
    """
    return parse(os.environ.get("RAY_ADDRESS") or "local")


def parse(text: str) -> Address:
    """Reads ``local``, ``auto``, ``HOST:PORT`` or ``ray://HOST[:PORT]``.

    Raises:
        ClusterError: no port, or one that is no number from 1 to 65535.
    """
    if text == "local":
        return Address(text, "local")
    if text == "auto":
        return Address(text, "auto")
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme != "ray":
        return Address(text, "other")
    host, _, port = rest.partition("/")[0].rpartition(":")
    if separator and not host:
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ClusterError(
            "RAY_ADDRESS must be HOST:PORT, ray://HOST:PORT, auto or local",
            where=text,
            fix="write for example RAY_ADDRESS=10.0.0.5:6379, or unset it to use this machine",
        )
    return Address(text, "cluster", host.strip("[]"), int(port))


def last_started(temp: Path) -> Address | None:
    """The Ray that was started last on this machine with ``ray start``, which ``auto`` means; None if none is noted.

    Args:
        temp: Ray's folder for temporary files, without ``ray``.
    """
    try:
        return parse((temp / "ray" / "ray_current_cluster").read_text().strip())
    except (OSError, ClusterError):
        return None


def probe(address: Address, *, seconds: float = PROBE_SECONDS) -> None:
    """Finds out whether a Ray may be reached at a host and port.

    Args:
        address: a ``cluster`` address.
        seconds: how long it may take.

    Raises:
        ClusterError: nobody listens there, or what listens there is no Ray or hangs.
    """
    problems: list[str] = []

    def knock() -> None:
        problems.append(_knock(address, encrypted=os.environ.get("RAY_USE_TLS", "0") == "1"))

    # A name that does not resolve keeps its thread inside the system for as long as the system likes.
    thread = threading.Thread(target=knock, name="probe", daemon=True)
    thread.start()
    thread.join(seconds)
    problem = problems[0] if problems else f"no answer within {seconds:.0f} s"
    if problem:
        raise ClusterError(
            f"Ray does not answer ({problem})",
            where=address.text,
            fix="start the cluster, correct RAY_ADDRESS, or unset it to use this machine",
        )


def _knock(address: Address, *, encrypted: bool) -> str:
    """What is wrong; empty if nothing is."""
    try:
        with socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS) as connection:
            if encrypted:
                return ""
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < _FRAME_HEADER_BYTES:
                received = connection.recv(_FRAME_HEADER_BYTES - len(answer))
                if not received:
                    break
                answer += received
    except TimeoutError:
        return "the connection is not answered"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    is_settings = len(answer) == _FRAME_HEADER_BYTES and answer[3] == _SETTINGS
    return "" if is_settings else "another program listens there"
