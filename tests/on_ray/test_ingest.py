"""Ingest through Ray Data: the same datasets as without it, from folders and from S3, and no worker's death stops the rest."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray import cloudpickle

from rave_dist.audio.io.sources import AudioSource, list_sources
from rave_dist.dataset import on_ray
from rave_dist.dataset.on_ray import ingest
from rave_dist.dataset.prepare import prepare
from rave_dist.dataset.read import latest_manifest, read_segments
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import AudioError, ClusterError, StoreError
from rave_dist.storage.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")
RATE = 16_000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Twelve recordings of 1 to 3 s, of three formats, and a text that is none."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        sound = random.uniform(-0.5, 0.5, (RATE * (1 + index % 3), 1 + index % 2))
        soundfile.write(folder / f"take {index:02d}.{('wav', 'flac', 'ogg')[index % 3]}", sound, RATE)
    (folder / "notes.wav").write_text("none")
    return folder


def run(store: Store, *patterns: object, **options: Any):
    settings: dict[str, Any] = {"sample_rate": RATE, "channels": 1, "credit": {"licence": "CC0-1.0"}, "library": "tests"}
    return ingest(store, "drum", [str(p) for p in patterns], **(settings | options))


def heard(store: Store, manifest) -> list[bytes]:
    return [segment.pcm.tobytes() for segment in read_segments(store, manifest)]


def test_a_dataset_is_the_same_from_a_folder_and_from_s3_whatever_the_groups(
    recordings, local_store, s3_store, tmp_path, monkeypatch
):
    told: list[tuple[int, int]] = []
    whole = run(local_store, recordings, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 13), (13, 13)]
    assert whole.used_seconds == pytest.approx(24.0, abs=1e-3)
    assert [(Path(r.source).name, r.unreadable) for r in whole.rejected] == [("notes.wav", True)]
    assert whole.credit == {"licence": "CC0-1.0"}
    assert latest_manifest(local_store, "drum", "tests") == whole
    assert len(whole.shards) == 1

    for path in recordings.iterdir():
        s3_store.upload(path, f"in/{path.name}")
    monkeypatch.setattr(on_ray, "_GROUP_BYTES", (1, 100_000))
    pieces = run(s3_store, s3_store.address("in"))
    assert len(pieces.shards) > 4
    assert pieces.id == whole.id
    assert heard(s3_store, pieces) == heard(local_store, whole)

    alone = Store(str(tmp_path / "alone"))
    outcomes, _ = prepare(list_sources([str(recordings)]), store=alone, instrument="drum", recipe=Recipe(RATE, 1), known=())
    assert {o.record.pcm_sha256 for o in outcomes if o.record and o.record.spans} == {s.pcm_sha256 for s in whole.sources}


def test_only_what_is_new_is_read(recordings, any_store):
    first = run(any_store, recordings)
    objects = {entry.key: entry.tag for entry in any_store.list()}
    for path in recordings.iterdir():  # whoever reads them now, reads nothing
        status = path.stat()
        path.write_bytes(b"\0" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(any_store, recordings) == first
    assert {entry.key: entry.tag for entry in any_store.list()} == objects

    soundfile.write(recordings / "new.wav", np.random.default_rng(9).uniform(-0.5, 0.5, RATE), RATE)
    told: list[tuple[int, int]] = []
    second = run(any_store, recordings, progress=lambda done, total: told.append((done, total)))
    assert told == [(13, 14), (14, 14)]
    assert len(second.sources) == 13
    assert set(heard(any_store, first)) < set(heard(any_store, second))
    (recordings / "new.wav").unlink()
    assert run(any_store, recordings).id == first.id


def test_duplicates_are_found_across_workers(recordings, local_store, monkeypatch):
    (recordings / "copies").mkdir()
    for path in recordings.glob("*.flac"):
        sound, rate = soundfile.read(path, dtype="int16")
        soundfile.write(recordings / "copies" / f"{path.stem}.wav", sound, rate)
    monkeypatch.setattr(on_ray, "_GROUP_BYTES", (1, 1))
    manifest = run(local_store, recordings)
    duplicates = [r for r in manifest.rejected if r.reason.startswith("the same recording as ")]
    assert len(duplicates) == 4
    assert len(heard(local_store, manifest)) == 12
    assert manifest.seconds == pytest.approx(24.0 + 8.0, abs=1e-3)


def test_ten_thousand_short_files_are_few_tasks():
    sources = [AudioSource(f"/{i:05d}.wav", 60_000, "", "") for i in range(10_000)]
    groups = on_ray._groups(sources)
    assert len(groups) <= 20
    assert [source for group in groups for source in group] == sources
    assert on_ray._groups([]) == []


def _deadly(row: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """A group that ends its worker if it has the recording that no decoder survives."""
    if any(source.uri.endswith("deadly.wav") for source in pickle.loads(row["group"])):
        os.kill(os.getpid(), signal.SIGKILL)
    return on_ray._prepare_group(row, **settings)


@pytest.fixture
def sent_by_value() -> Iterator[None]:
    """Workers cannot import a test."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.usefixtures("sent_by_value")
def test_a_recording_that_kills_its_worker_is_rejected_and_the_others_are_used(recordings, local_store):
    soundfile.write(recordings / "deadly.wav", np.zeros(100), RATE)
    work = partial(_deadly, store=local_store, instrument="drum", recipe=Recipe(RATE, 1), known=frozenset())
    sources = list_sources([str(recordings / "deadly.wav"), str(recordings / "take 0[0-2]*")])
    outcomes = [outcome for group, _ in on_ray._run(work, sources, local_store) for outcome in group]
    (rejection,) = [o.rejection for o in outcomes if o.rejection]
    assert rejection.source.endswith("deadly.wav")
    assert rejection.reason == "crashes the decoder"
    assert sum(o.record is not None for o in outcomes) == 3


def test_workers_that_cannot_run_are_not_taken_for_bad_recordings(recordings, local_store):
    work = partial(_deadly, store=local_store, instrument="drum", recipe=Recipe(RATE, 1), known=frozenset())
    with pytest.raises(ClusterError, match="none of Ray's workers"):
        list(on_ray._run(work, list_sources([str(recordings)]), local_store))


def test_errors_come_through_in_our_words(recordings, local_store, tmp_path):
    with pytest.raises(AudioError, match="no recording matches"):
        run(local_store, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="folder is needed"):
        run(Store(str(tmp_path / "file")), recordings)


def test_a_folder_of_nothing_but_noise_about_nothing_is_accounted_for(tmp_path, local_store):
    soundfile.write(tmp_path / "silent.wav", np.zeros(3 * RATE), RATE)
    manifest = run(local_store, tmp_path / "silent.wav")
    assert (manifest.sources, manifest.used_seconds, manifest.seconds) == ((), 0.0, 3.0)
    assert read_segments(local_store, manifest) == []
