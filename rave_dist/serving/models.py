"""The replica behind the service: it holds as many models as fit in memory and converts one sound at a time."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import serve

from rave_dist.audio.io.open import probe
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.file import convert_file
from rave_dist.errors import AudioError, LimitError, RequestError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.registry import store as registry
from rave_dist.serving.model_queue import GroupedLock
from rave_dist.serving.schema import Limits
from rave_dist.storage.store import Store

Result = TypeVar("Result")

# A loaded TorchScript takes about twice its file: weights, and the constants and code around them.
_MEMORY_PER_FILE_BYTE = 2
_MEMORY_SHARE = 0.5  # the other half is for the sounds and for corpus jobs beside the replica
_MOST_MODELS = 32
_BLOCK_BYTES = 1 << 20
_ASSUMED_MEMORY = 4 << 30


class ModelReplica:
    """Converts sounds with any published model.

    Args:
        store_uri: where the models are published.
        limits: what one request may ask for.
        max_models: models kept in memory; as many as fit when not given.
        device: where they run.
    """

    def __init__(self, store_uri: str, limits: Limits, *, max_models: int | None = None, device: str = "cpu") -> None:
        torch.set_num_threads(1)  # as the command's workers: another number may round otherwise
        self._store = Store(store_uri)
        self._limits = limits
        self._device = device
        self._folder = tempfile.TemporaryDirectory(prefix="rave-dist-serving-")
        # One thread: what runs on the device never runs beside something else on it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._turns = GroupedLock()
        self._busy_since: float | None = None
        if max_models is None:
            sizes = [card.files["offline"].bytes for card in registry.list_models(self._store)]
            max_models = models_that_fit(_node_memory(), sizes)

        async def load(reference: str) -> Converter:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._load, reference)

        # Decorated here, because only a replica knows how much memory its node has.
        self._model = serve.multiplexed(max_num_models_per_replica=max_models)(load)

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises.

        Raises:
            RuntimeError: a conversion outlived its request by as long again: it does not answer to being stopped.
        """
        if self._busy_since is not None and time.monotonic() - self._busy_since > 2 * self._limits.request_seconds:
            raise RuntimeError("a conversion is stuck on the device")

    async def convert(
        self, sound: NDArray[np.uint8], card: ModelCard, parameters: ConversionParameters
    ) -> AsyncIterator[dict[str, Any] | bytes]:
        """Plays a sound through a model.

        Args:
            sound: the bytes of a file in any format.
            card: the model's card.
            parameters: rate, channels, format and seed of the result.

        Yields:
            first ``{num_bytes, media_type, headers}``, then the encoded result in blocks.

        Raises:
            AudioError: the sound is damaged or not a sound.
            LimitError: it is longer than the service allows.
            StoreError: the model cannot be read.
        """
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            source, result = Path(folder, "sound"), Path(folder, f"result.{parameters.format}")
            await asyncio.to_thread(sound.tofile, source)
            del sound
            async with self._turns.take(card.reference):
                model = await self._model(card.reference)
                try:
                    headers = await self._run(lambda stop: self._convert(model, source, result, parameters, stop))
                except AudioError as error:
                    fix = error.fix
                    if error.where == str(source):  # not the client's words for it
                        fix = "send an intact sound; salvage=true converts what can be read of a damaged one"
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
            future.exception()  # seen: nobody is told of it any more
            raise
        finally:
            self._busy_since = None

    def _load(self, reference: str) -> Converter:
        card = registry.find(self._store, reference)
        path = registry.fetch(self._store, card, kind="offline", folder=Path(self._folder.name, "models"))
        return Converter(path, card, device=self._device)

    def _convert(
        self, model: Converter, source: Path, result: Path, parameters: ConversionParameters, stop: threading.Event
    ) -> dict[str, str]:
        """The work in the device's thread; returns the headers of the answer."""
        info = probe(source)
        self._check_length((info.samples or 0) / info.sample_rate)

        def on_read(seconds: float) -> None:
            if stop.is_set():
                raise RequestError("nobody waits for this conversion any more")
            self._check_length(seconds)

        comment = f"rave-dist: sha256 {hash_file(source)} through {model.card.reference}, seed {parameters.seed}"
        converted = convert_file(model, source, result, parameters, comment=comment, on_read=on_read)
        if converted.damage is None:
            return {}
        return {"x-rave-dist-salvaged": converted.damage.encode("ascii", "replace").decode()}

    def _check_length(self, seconds: float) -> None:
        if seconds > self._limits.sound_seconds:
            raise LimitError(
                f"the sound is longer than {self._limits.sound_seconds:g} seconds",
                where="sound",
                fix="send a shorter one, or convert it with POST /v1/jobs or rave-dist convert",
            )


def models_that_fit(memory: float, file_bytes: Sequence[int]) -> int:
    """How many models of these sizes a replica may keep in half of its node's memory: at least one, at most 32."""
    largest = max(file_bytes, default=0)
    return max(1, min(_MOST_MODELS, int(_MEMORY_SHARE * memory / max(1, _MEMORY_PER_FILE_BYTE * largest))))


def _node_memory() -> float:
    """Bytes that Ray counts as this node's own, which knows of container limits."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((n["Resources"].get("memory", _ASSUMED_MEMORY) for n in nodes if n["NodeID"] == here), _ASSUMED_MEMORY)
