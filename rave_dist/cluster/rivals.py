"""Commands that train on the same Ray: each says there what it has taken and whether it wants more, so that they share it."""

from __future__ import annotations

import json
import math
import time
import uuid
from typing import Any

from ray.experimental import internal_kv

_NAMESPACE = b"rave_dist"
_PREFIX = b"training/"
_SILENT_SECONDS = 30.0


class Rivals:
    """The other commands that train on the connected Ray; a command that is silent for 30 seconds has ended."""

    def __init__(self) -> None:
        self._key = _PREFIX + uuid.uuid4().hex.encode()
        self._said = 0
        self._head_start: float | None = None
        self._heard: dict[bytes, tuple[bytes, float]] = {}

    def lead(self, *, taken: float, waits: bool) -> float:
        """How far the waiting command that has taken least is ahead of this one; infinite if no other waits.

        A command counts from what the others had taken when it came.

        Args:
            taken: by this command, in card-seconds.
            waits: whether it has runs that wait.
        """
        others = self._others()
        if self._head_start is None:
            self._head_start = min((other["taken"] for other in others), default=0.0)
        own = self._head_start + taken
        self._said += 1
        said = json.dumps({"taken": own, "waits": waits, "said": self._said}).encode()
        internal_kv._internal_kv_put(self._key, said, overwrite=True, namespace=_NAMESPACE)
        return min((other["taken"] for other in others if other["waits"]), default=math.inf) - own

    def leave(self) -> None:
        """This command wants nothing any more."""
        internal_kv._internal_kv_del(self._key, namespace=_NAMESPACE)

    def _others(self) -> list[dict[str, Any]]:
        found = []
        for key in internal_kv._internal_kv_list(_PREFIX, namespace=_NAMESPACE):
            said = None if key == self._key else internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
            if said is None:
                continue
            before, since = self._heard.get(key, (b"", 0.0))
            if said != before:
                since = time.monotonic()
                self._heard[key] = (said, since)
            if time.monotonic() - since < _SILENT_SECONDS:
                found.append(json.loads(said))
        return found
