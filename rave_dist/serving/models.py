"""The service's replica: caches as many models as fit in memory and converts one file at a time."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import serve

from rave_dist.audio.io.open import probe
from rave_dist.audio.io.write import Format
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.describe import Origin
from rave_dist.conversion.file import Target, convert_file
from rave_dist.conversion.inspection import inspect
from rave_dist.conversion.loading import MEMORY_PER_FILE_BYTE, MODELS_SHARE
from rave_dist.errors import AudioError, RequestError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard, Treatment
from rave_dist.registry import store as registry
from rave_dist.serving.model_queue import GroupedLock
from rave_dist.serving.schema import Limits
from rave_dist.serving.work import work_limit
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

Result = TypeVar("Result")

_MOST_MODELS = 32
_BLOCK_BYTES = 1 << 20
_ASSUMED_MEMORY = 4 << 30


class ModelReplica:
    """Converts audio with any published model.

    Args:
        store_uri: the store of the models.
        limits: limits of a request.
        max_models: models kept in memory; by default as many as fit.
        device: ``cpu`` or ``cuda``.
        trust: load model files with operators that no export has.
    """

    def __init__(
        self, store_uri: str, limits: Limits, *, max_models: int | None = None, device: str = "cpu", trust: bool = False
    ) -> None:
        torch.set_num_threads(1)  # like the command's workers: another number may round differently
        self._store = Store(store_uri)
        self._limits = limits
        self._device = device
        self._trust = trust
        self._open = ExitStack()  # until this object is collected
        self._folder = self._open.enter_context(temporary_folder("serving"))
        # One thread, so that only one task uses the device at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._turns = GroupedLock()
        self._busy_since: float | None = None
        if max_models is None:
            sizes = [card.files["offline"].bytes for card in registry.list_models(self._store) if "offline" in card.files]
            max_models = models_that_fit(_node_memory(), sizes)

        async def load(reference: str) -> Converter:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._load, reference)

        # Decorated here, because only the replica knows its node's memory.
        self._model = serve.multiplexed(max_num_models_per_replica=max_models)(load)

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises.

        Raises:
            RuntimeError: a conversion has run for twice the limit of a request and does not stop.
        """
        if self._busy_since is not None and time.monotonic() - self._busy_since > 2 * self._limits.request_seconds:
            raise RuntimeError("a conversion is stuck on the device")

    async def convert(
        self, sound: NDArray[np.uint8], card: ModelCard, parameters: ConversionParameters
    ) -> AsyncIterator[dict[str, Any] | bytes]:
        """Converts audio with a model.

        Args:
            sound: the bytes of a file in any format.
            card: the model's card.
            parameters: of the conversion, for this model.

        Yields:
            first ``{num_bytes, media_type, headers}``, then the encoded result in blocks.

        Raises:
            AudioError: the file is damaged or not an audio file.
            LimitError: the audio is longer than the service allows.
            StoreError: the model cannot be read.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            source, result = Path(folder, "sound"), Path(folder, f"result.{parameters.format}")
            await asyncio.to_thread(sound.tofile, source)
            del sound
            async with self._turns.take(card.reference):
                model = await self._model(card.reference)
                try:
                    headers = await self._run(lambda stop: self._convert(model, source, result, parameters, stop))
                except AudioError as error:
                    fix = _fix(error, parameters) if error.where == str(source) else error.fix
                    raise AudioError(error.what, where="sound", fix=fix) from error
            media_type = f"audio/{parameters.format}"
            yield {"num_bytes": result.stat().st_size, "media_type": media_type, "headers": headers}
            with open(result, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block

    async def _run(self, work: Callable[[threading.Event], Result]) -> Result:
        """Runs work in the device's thread; when the request is cancelled, tells it to stop and waits until it has."""
        stop = threading.Event()
        self._busy_since = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future])
            future.exception()  # retrieved, so that it is not reported as unhandled
            raise
        finally:
            self._busy_since = None

    def _load(self, reference: str) -> Converter:
        card = registry.find(self._store, reference)
        path = registry.fetch(self._store, card, kind="offline", folder=Path(self._folder, "models"), trust=self._trust)
        return Converter(path, card, device=self._device)

    def _convert(
        self, model: Converter, source: Path, result: Path, parameters: ConversionParameters, stop: threading.Event
    ) -> dict[str, str]:
        """The conversion in the device's thread; returns the headers of the response."""
        check = work_limit(self._limits, probe(source), model.card, parameters)

        def on_read(seconds: float) -> None:
            if stop.is_set():
                raise RequestError("the request of this conversion was cancelled")
            check(seconds)

        treated = parameters.treatment != Treatment()
        profile = inspect(source, parameters, on_read=on_read).profile if treated else None
        file_format: Format = "wav" if parameters.format == "wav" else "flac"
        target = Target(result, model, parameters, file_format, Origin(hash_file(source)), profile)
        converted = convert_file(source, target, on_read=on_read)
        remarks = {"salvaged": converted.damage, "notes": "; ".join(converted.notes)}
        for name, problem in (("silent", converted.silent), ("clipped", converted.clipped)):
            remarks[name] = f"{problem.what}; {problem.fix}" if problem else None
        return {f"x-rave-dist-{name}": said.encode("ascii", "replace").decode() for name, said in remarks.items() if said}


def _fix(error: AudioError, parameters: ConversionParameters) -> str:
    """The fix of a sound that cannot be read, in terms of requests instead of files."""
    if "not a " in error.what or "no samples" in error.what or "empty" in error.what:
        return "send a recording, in any format of libsndfile or FFmpeg"
    return "send an intact sound" + ("" if parameters.salvage else "; salvage=true converts the readable part of a damaged one")


def models_that_fit(memory: float, file_bytes: Sequence[int]) -> int:
    """The number of models of these sizes that fit in half of the node's memory, from 1 to 32."""
    largest = max(file_bytes, default=0)
    return max(1, min(_MOST_MODELS, int(MODELS_SHARE * memory / max(1, MEMORY_PER_FILE_BYTE * largest))))


def _node_memory() -> float:
    """This node's memory in bytes according to Ray, which respects container limits."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((n["Resources"].get("memory", _ASSUMED_MEMORY) for n in nodes if n["NodeID"] == here), _ASSUMED_MEMORY)
