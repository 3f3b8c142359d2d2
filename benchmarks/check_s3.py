"""Requests and bytes by which `check` reads recordings on S3: by ranges, against the download of each.

    python benchmarks/check_s3.py --store s3://BUCKET/PREFIX [--json] [--recordings N] [--megabytes M]

Writes recordings of noise (16 bits, stereo), half WAV and half FLAC, below the prefix, counts what boto3 asks for and gets, and
deletes them. The server's address and the credentials are found as by every command.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from harness import report

from rave_dist.audio.io.open import probe
from rave_dist.audio.io.sources import AudioSource, list_sources, local_copy
from rave_dist.checks.recordings import open_recordings
from rave_dist.storage import s3
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store

RATE = 44_100


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


def counted(
    read: Callable[[Sequence[AudioSource]], list[float]], sources: Sequence[AudioSource]
) -> tuple[list[float], int, int]:
    """What a function returns, and the requests and bytes that it cost."""
    answers: list[int] = []

    def count(parsed_response: Any, **_: Any) -> None:
        answers.append(int((parsed_response or {}).get("ContentLength", 0)) if "Body" in (parsed_response or {}) else 0)

    events = s3._connection().client.meta.events
    events.register("response-received.s3", count)
    try:
        return read(sources), len(answers), sum(answers)
    finally:
        events.unregister("response-received.s3", count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=5.0)
    arguments = parser.parse_args()
    store, frames = Store(arguments.store), round(arguments.megabytes * 1e6 / 4)
    noise = np.random.default_rng(0).normal(0, 0.1, (frames, 2))
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        for suffix in ("wav", "flac"):
            soundfile.write(Path(name, f"noise.{suffix}"), noise, RATE, subtype="PCM_16")
        for number in range(arguments.recordings):
            suffix = ("wav", "flac")[number % 2]
            store.upload(Path(name, f"noise.{suffix}"), f"check-s3/{number}.{suffix}")
    try:
        sources = list_sources([store.address("check-s3")])
        before, after = (counted(read, sources) for read in (whole, ranges))
    finally:
        store.delete_folder("check-s3")
    if before[0] != after[0]:
        raise SystemExit("the two ways do not find the same lengths")
    rows = [
        {"": name, "requests": requests, "requests per recording": requests / len(sources), "MB": size / 1e6}
        for name, (_, requests, size) in (("downloaded", before), ("by ranges", after))
    ]
    report(
        f"check, {len(sources)} recordings of {arguments.megabytes:g} MB on S3",
        rows,
        {"bytes": before[2] / after[2]},
        json=arguments.json,
    )


if __name__ == "__main__":
    main()
