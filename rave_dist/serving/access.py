"""Where corpus jobs may read and write.

A service has no passwords, so a job's OUTPUT is limited: never the service's own store, never a folder of the system, and only
below the folders that the operator named, if any. Links are resolved. Files in OUTPUT that no journal of the service's
store wrote are replaced only if the request asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from rave_dist.audio.io.sources import local_copy
from rave_dist.audio.metadata.read import read_comment
from rave_dist.conversion.corpus import FOREIGN, FOREIGN_FIX, Plan, Task, output_tag, read_entry
from rave_dist.conversion.item import failed_item
from rave_dist.conversion.names import as_wav
from rave_dist.errors import RaveDistError, RequestError, StoreError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionFolder, ConversionItem, ConversionRequest, Problem
from rave_dist.storage.schemes import is_remote, normalise
from rave_dist.storage.store import Store

_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/proc", "/run", "/sbin", "/sys", "/usr", "/var"),
)
_THREADS = 16
_NOT_SYSTEM = ("/run/media", "/run/user", "/usr/local/share", "/var/tmp", "/var/lib", "/dev/shm")


@dataclass(frozen=True)
class Access:
    """The addresses that jobs may use; an empty tuple allows all that are not protected.

    Args:
        store_uri: the service's store.
        outputs: OUTPUT must be one of these folders or prefixes, or below one.
        inputs: every input must be one of these, or below one.
    """

    store_uri: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs"):  # Ray's processes have another current folder
            object.__setattr__(self, name, tuple(map(normalise, getattr(self, name))))

    def check(self, inputs: Sequence[str], output: str) -> None:
        """Refuses a request's addresses; no folder is listed.

        Raises:
            RequestError: an address is not allowed.
        """
        if reason := self._refused(_real(output)):
            raise RequestError(f"OUTPUT {reason}", where=output, fix=self._output_fix())
        for address in inputs:
            if self._may_not_read(address):
                fix = f"choose recordings below {' or '.join(self.inputs)}, or start the service with --inputs-below"
                raise RequestError("an input is outside of the folders that this service may read", where=address, fix=fix)

    def _refused(self, place: str) -> str | None:
        """Why nothing may be written to a resolved address; None if it may."""
        store = _real(self.store_uri)
        if is_within(place, store) or is_within(store, place):
            return "overlaps the service's own store"
        if not is_remote(place) and (place == "/" or (_below(place, _SYSTEM) and not _below(place, _NOT_SYSTEM))):
            return "is in a folder of the system"
        if self.outputs and not _below(place, [_real(folder) for folder in self.outputs]):
            return "is outside of the folders that this service may write to"
        return None

    def _output_fix(self) -> str:
        if self.outputs:
            return f"choose a folder below {' or '.join(self.outputs)}, or start the service with --outputs-below"
        return "choose a folder for recordings that neither is in the store nor contains it"

    def _may_not_read(self, address: str) -> bool:
        return bool(self.inputs) and not _below(_real(address), [_real(folder) for folder in self.inputs])

    def split(self, store: Store, plan: Plan, *, overwrite: bool) -> tuple[Plan, list[ConversionItem]]:
        """A plan without the tasks that may not read or write, and these as failed items.

        Args:
            store: the service's store, with the journals.
            plan: the job's plan.
            overwrite: whether files that no journal wrote are replaced.
        """
        journals = [] if overwrite else _journals(store, plan)

        def is_foreign(task: Task, key: str) -> bool:
            if overwrite or not plan.output.exists(key):
                return False
            return not (any(_wrote(store, journal, task, key) for journal in journals) or _is_its_result(plan, task, key))

        def judge(task: Task) -> Problem | str | None:
            """Why a task is refused, or the file that it must not replace if its output becomes a WAV file."""
            if self._may_not_read(task.source.uri):
                what = "a link leads outside of the folders that this service may read"
                return Problem(what=what, fix=f"choose recordings below {' or '.join(self.inputs)}")
            if plan.output.is_local and (reason := self._refused(_real(plan.output.address(task.output)))):
                return Problem(what=f"a link leads elsewhere, and its output {reason}", fix=self._output_fix())
            if is_foreign(task, task.output):
                return Problem(what=FOREIGN, fix=FOREIGN_FIX)
            return as_wav(task.output) if is_foreign(task, as_wav(task.output)) else None

        with ThreadPoolExecutor(_THREADS) as pool:
            judged = list(zip(plan.tasks, pool.map(judge, plan.tasks), strict=True))
        refused = [failed_item(plan, task, found.what, found.fix) for task, found in judged if isinstance(found, Problem)]
        kept = tuple(task for task, found in judged if not isinstance(found, Problem))
        protected = frozenset(found for _, found in judged if isinstance(found, str))
        return replace(plan, tasks=kept, protected=protected), refused


def is_within(path: str, folder: str) -> bool:
    """Whether a resolved address is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(is_within(path, folder) for folder in folders)


def _real(address: str) -> str:
    """An address without links, ``..`` and a trailing slash."""
    try:
        place = normalise(address)
    except StoreError as error:
        raise RequestError(error.what, where=error.where, fix=error.fix) from error
    return place if is_remote(place) else os.path.realpath(place)


def _journals(store: Store, plan: Plan) -> list[Plan]:
    """This plan and those of other conversions of the store with the same OUTPUT: models and parameters differ."""
    plans = [plan]
    for entry in store.list("conversions"):
        conversion, _, name = entry.key.removeprefix("conversions/").partition("/")
        if name != "request.json" or conversion == plan.id:
            continue
        try:
            request = ConversionRequest.load(store, ConversionFolder.of(conversion).request)
        except StoreError:
            continue
        if request.output == plan.output.uri:
            plans.append(replace(plan, id=conversion))
    return plans


def _wrote(store: Store, plan: Plan, task: Task, key: str) -> bool:
    """Whether a journal says that the file which is there now was written by it."""
    entry = read_entry(store, plan, task)
    if entry is None or entry.state == "failed" or plan.written_key(entry) != key:
        return False
    return entry.output_tag == output_tag(plan, key)


def _is_its_result(plan: Plan, task: Task, key: str) -> bool:
    """Whether the file that is there says that it is this source through this model: its service died before the journal."""
    try:
        with local_copy(task.source.uri) as source, local_copy(plan.output.address(key)) as result:
            expected = f"(sha256 {hash_file(source)}) through {plan.card.reference}, seed {plan.parameters.seed}"
            return expected in read_comment(result)
    except (RaveDistError, OSError):
        return False
