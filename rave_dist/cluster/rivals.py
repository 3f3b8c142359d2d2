"""Commands that train on the same Ray: each says there what it has taken and where it waits for more, so that they share it."""

from __future__ import annotations

import contextlib
import json
import math
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rave_dist.cluster import head
from rave_dist.errors import ClusterError

_PREFIX = b"training/"
_SILENT_SECONDS = 30.0


@dataclass(frozen=True)
class Claim:
    """What a command says: the card-seconds that it has taken, and the ids of the hosts that its waiting runs could use."""

    taken: float
    wants: tuple[str, ...]
    number: int = 0  # of its claims so far, which shows that it lives


class Rivals:
    """The other commands that train on the connected Ray; a command that is silent for 30 seconds has ended."""

    def __init__(self) -> None:
        self._key = _PREFIX + uuid.uuid4().hex.encode()
        self._number = 0
        self._head_start: float | None = None
        self._heard: dict[bytes, tuple[bytes, float]] = {}

    def lead(self, *, taken: float, wants: Iterable[str]) -> tuple[float, set[str]]:
        """How far the commands that want the same hosts are ahead of this one, and the hosts that it must leave to others.

        A command counts from what the others had taken when it came.

        Args:
            taken: by this command, in card-seconds.
            wants: ids of the hosts that its waiting runs could use.

        Returns:
            The lead of the one that has taken least, in card-seconds: infinite if no other wants one of these hosts, negative
            if it has taken less than this one; and the hosts that are wanted by those that have taken less.
        """
        others = self._others()
        if self._head_start is None:
            self._head_start = min((other.taken for other in others), default=0.0)
        own = Claim(self._head_start + taken, tuple(wants), self._number)
        self._number += 1
        said = json.dumps(asdict(own)).encode()
        head.put(self._key, said)
        rivals = [other for other in others if set(other.wants) & set(own.wants)]
        theirs = {host for other in rivals if other.taken < own.taken for host in other.wants}
        return min((other.taken for other in rivals), default=math.inf) - own.taken, theirs

    def leave(self) -> None:
        """This command wants nothing any more; if the head is away, others see that it is silent."""
        with contextlib.suppress(ClusterError):
            head.delete(self._key)

    def _others(self) -> list[Claim]:
        found = []
        for key, said in head.values(_PREFIX).items():
            if key == self._key:
                continue
            before, since = self._heard.get(key, (b"", 0.0))
            if said != before:
                since = time.monotonic()
                self._heard[key] = (said, since)
            if time.monotonic() - since < _SILENT_SECONDS:
                found.append(Claim(**json.loads(said)))
        return found
