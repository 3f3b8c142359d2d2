"""Ports of this machine for the servers of tests: each is chosen by one process only, before its server listens."""

from __future__ import annotations

import itertools
import random
import socket


def free_ports(count: int) -> list[int]:
    """Ports that are free together with the port 10000 above, which SeaweedFS opens too; below the ephemeral range."""
    candidates = random.SystemRandom().sample(range(20_000, 22_700), 200)
    free = (port for port in candidates if _is_free(port) and _is_free(port + 10_000) and _reserve(port))
    return list(itertools.islice(free, count))


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


def _reserve(port: int) -> bool:
    """Whether no other test process of this machine has chosen a port, which until its server starts only a name can say.

    Names in the abstract namespace are seen from every root of the machine.
    """
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0rave-dist-test-port-{port}")
    except OSError:
        reservation.close()
        return False
    reservation.detach()  # open until this process ends
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
