"""What reading a library on S3 costs: requests, bytes and seconds of `check` and `status`.

    python benchmarks/check_s3.py --store s3://BUCKET/PREFIX [--json] [--recordings N] [--megabytes M]
    python benchmarks/check_s3.py --store s3://BUCKET/PREFIX [--json] --instruments N [--round-trip MS]

Without ``--instruments``: how `check` reads recordings, by ranges, against the download of each. With it: `check` and `status`
of a library of N instruments with four recordings each and a run in progress; ``--round-trip`` delays every answer by as many
milliseconds, as a distant server does.

Writes recordings of noise (16 bits, stereo), half WAV and half FLAC, below the prefix, counts what boto3 asks for and gets, and
deletes them. The server's address and the credentials are found as by every command.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import soundfile
from harness import report

from rave_dist import pipeline
from rave_dist.audio.io.open import probe
from rave_dist.audio.io.sources import AudioSource, list_sources, local_copy
from rave_dist.checks.recordings import open_recordings
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetFolder, DatasetManifest, DatasetPointer, SourceRecord, now
from rave_dist.storage import s3
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import record_of, write_record

RATE = 44_100
RECORDINGS_OF_EACH = 4

Result = TypeVar("Result")


def whole(sources: Sequence[AudioSource]) -> list[float]:
    """The seconds of recordings that are downloaded."""

    def seconds(source: AudioSource) -> float:
        with local_copy(source.uri) as path:
            found = probe(path)
        return (found.samples or 0) / found.sample_rate

    return at_once(seconds, sources)


def ranges(sources: Sequence[AudioSource]) -> list[float]:
    """The seconds of recordings, as `check` reads them."""
    return [recording.seconds for recording in open_recordings(sources)]


class Count:
    """Requests of this process to S3: their number, the bytes of the answers, the most that waited at the same time."""

    def __init__(self) -> None:
        self.requests = self.bytes = self.most = self._waiting = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Counts within the context."""
        events = s3._connection().client.meta.events
        handlers = {"before-send.s3": self._sent, "response-received.s3": self._answered}
        for name, handler in handlers.items():
            events.register_last(name, handler)
        try:
            yield
        finally:
            for name, handler in handlers.items():
                events.unregister(name, handler)

    def _sent(self, **_: Any) -> None:
        with self._lock:
            self._waiting += 1
            self.most = max(self.most, self._waiting)

    def _answered(self, parsed_response: Any, **_: Any) -> None:
        answer = parsed_response or {}
        with self._lock:
            self._waiting -= 1
            self.requests += 1
            self.bytes += int(answer.get("ContentLength", 0)) if "Body" in answer else 0


def counted(work: Callable[[], Result]) -> tuple[Result, Count, float]:
    """What a function returns, its requests, and its seconds."""
    count, began = Count(), time.monotonic()
    with count.counting():
        result = work()
    return result, count, time.monotonic() - began


@contextlib.contextmanager
def distant(milliseconds: float) -> Iterator[None]:
    """Makes the server answer later, by a proxy on loopback that delays what clients send."""
    server = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                loop.call_later(delay, writer.write, data)  # the chunks of a connection stay in their order
        loop.call_later(delay, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(server.hostname, server.port)
        with contextlib.suppress(asyncio.CancelledError):  # at the end
            await asyncio.gather(copy(reader, behind[1], milliseconds / 1000), copy(behind[0], writer, 0.0))

    proxy = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = server.geturl()
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def write_library(store: Store, folder: Path, instruments: int) -> Library:
    """A library of instruments with recordings in the store, each with the record of a run in progress."""
    names = [f"i{number:04}" for number in range(instruments)]
    document = {
        **{"name": "night", "store": store.address("store"), "defaults": {"config": "v2_tiny", "budget": {"steps": 1000}}},
        "instruments": {name: {"sources": [store.address(f"check-s3/{name}")]} for name in names},
    }
    library = Library.from_dict(document, folder=folder)

    def write(name: str) -> None:
        sources = []
        for number in range(RECORDINGS_OF_EACH):
            suffix = ("wav", "flac")[number % 2]
            store.upload(folder / f"noise.{suffix}", f"check-s3/{name}/{number}.{suffix}")
        for source in list_sources(library.sources(name)):
            sources.append(
                SourceRecord(
                    source=source.name,
                    source_id=source.relative,
                    fingerprint=source.fingerprint,
                    **{"seconds": 1.0, "used_seconds": 1.0, "sample_rate": RATE, "channels": 2, "format": "WAV"},
                    **{"samples": RATE, "spans": ((0, RATE),), "pcm_sha256": "", "peak": 0.5, "rms": 0.1, "dc": 0.0},
                    clipped_samples=0,
                )
            )
        dataset = DatasetManifest(
            id="0" * 12,
            instrument=name,
            sources=tuple(sources),
            **{"sample_rate": RATE, "channels": 1, "rejected": (), "shards": (), "used_seconds": 4.0, "created_at": now()},
        )
        dataset.save(library.store, dataset.folder.manifest)
        DatasetPointer(id=dataset.id).save(library.store, DatasetFolder.latest(name, library.name))
        spec = library.training_spec(name, dataset=dataset.id)
        spec.save(library.store, spec.folder.spec)
        write_record(library.store, record_of(library.store, spec))

    at_once(write, names)
    return library


def compare_readers(store: Store, folder: Path, recordings: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and ratios of both ways to read recordings."""
    for number in range(recordings):
        suffix = ("wav", "flac")[number % 2]
        store.upload(folder / f"noise.{suffix}", f"check-s3/{number}.{suffix}")
    sources = list_sources([store.address("check-s3")])
    before, after = (counted(lambda read=read: read(sources)) for read in (whole, ranges))
    if before[0] != after[0]:
        raise SystemExit("the two ways do not find the same lengths")
    rows = [
        {"": name, "requests": each.requests, "requests per recording": each.requests / len(sources), "MB": each.bytes / 1e6}
        for name, (_, each, _) in (("downloaded", before), ("by ranges", after))
    ]
    return rows, {"bytes": before[1].bytes / after[1].bytes}


def measure_commands(store: Store, folder: Path, instruments: int, round_trip: float) -> list[dict[str, Any]]:
    """Rows of the commands."""
    library = write_library(store, folder, instruments)
    pipeline.check(library, list(library.instruments)[:1])  # measures the model, which is kept
    rows = []
    for name, command in (("check", pipeline.check), ("status", pipeline.status)):
        with distant(round_trip) if round_trip else contextlib.nullcontext():
            _, count, seconds = counted(lambda command=command: command(library))
        per_instrument = round(count.requests / instruments, 1)
        rows.append(
            {
                **{"": name, "requests": count.requests, "requests per instrument": per_instrument},
                **{"most at once": count.most, "MB": round(count.bytes / 1e6, 1), "seconds": round(seconds, 1)},
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--instruments", type=int, default=0)
    parser.add_argument("--round-trip", type=float, default=0.0, help="milliseconds")
    arguments = parser.parse_args()
    store, frames = Store(arguments.store), round(arguments.megabytes * 1e6 / 4)
    noise = np.random.default_rng(0).normal(0, 0.1, (frames, 2))
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        for suffix in ("wav", "flac"):
            soundfile.write(folder / f"noise.{suffix}", noise, RATE, subtype="PCM_16")
        try:
            if arguments.instruments:
                rows = measure_commands(store, folder, arguments.instruments, arguments.round_trip)
            else:
                rows, ratios = compare_readers(store, folder, arguments.recordings)
        finally:
            store.delete_folder("check-s3")
            store.delete_folder("store")
    number = arguments.instruments * RECORDINGS_OF_EACH or arguments.recordings
    title = f"{number} recordings of {arguments.megabytes:g} MB on S3"
    if arguments.round_trip:
        title += f" at {arguments.round_trip:g} ms"
    report(title, rows, ratios, json=arguments.json)


if __name__ == "__main__":
    main()
