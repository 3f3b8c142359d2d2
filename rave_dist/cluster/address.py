"""Parses ``RAY_ADDRESS`` and probes it with plain sockets: Ray itself waits for minutes."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from rave_dist.errors import ClusterError

PROBE_SECONDS: Final = 8.0
"""Limit of a probe, name resolution included."""

_CONNECT_SECONDS = 3.0
_CLIENT_PORT = 10001
# The HTTP/2 connection preface with empty settings, and the frame type with which every server answers (RFC 9113).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_FRAME_HEADER_BYTES = 9
_SETTINGS = 4

Kind = Literal["local", "auto", "cluster", "other"]


@dataclass(frozen=True)
class Address:
    """An address as given, its kind, host and port.

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
        ClusterError: the port is missing or not a number.
    """
    return parse(os.environ.get("RAY_ADDRESS") or "local")


def parse(text: str) -> Address:
    """Reads ``local``, ``auto``, ``HOST:PORT`` or ``ray://HOST[:PORT]``.

    Raises:
        ClusterError: the port is missing or not a number from 1 to 65535.
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
    """The Ray that was last started on this machine with ``ray start``, the meaning of ``auto``; None if there is none.

    Args:
        temp: Ray's folder for temporary files, without ``ray``.
    """
    try:
        return parse((temp / "ray" / "ray_current_cluster").read_text().strip())
    except (OSError, ClusterError):
        return None


def probe(address: Address, *, seconds: float = PROBE_SECONDS) -> None:
    """Checks that an HTTP/2 server, as Ray is one, answers at a host and port.

    Args:
        address: a ``cluster`` address.
        seconds: time limit.

    Raises:
        ClusterError: nothing listens there, or another program does, or it hangs.
    """
    problems: list[str] = []

    def attempt() -> None:
        problems.append(_attempt(address, encrypted=os.environ.get("RAY_USE_TLS", "0") == "1"))

    # Name resolution has no time limit of its own, so it runs in a thread that may be left behind.
    thread = threading.Thread(target=attempt, name="probe", daemon=True)
    thread.start()
    thread.join(seconds)
    problem = problems[0] if problems else f"no answer within {seconds:.0f} s"
    if problem:
        raise ClusterError(
            f"Ray does not answer ({problem})",
            where=address.text,
            fix="start the cluster, correct RAY_ADDRESS, or unset it to use this machine",
        )


def _attempt(address: Address, *, encrypted: bool) -> str:
    """Tries one connection; returns what is wrong, or an empty string."""
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
        return "no response on the connection"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    is_settings = len(answer) == _FRAME_HEADER_BYTES and answer[3] == _SETTINGS
    return "" if is_settings else "another program listens there"
