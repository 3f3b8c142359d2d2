"""A corpus on Ray: the same bytes whatever the workers, only what is missing on a rerun, and no file that stops the rest."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import soundfile
import torch

from rave_dist.conversion import in_process, on_ray
from rave_dist.conversion.corpus import plan_conversion, plan_conversions
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, Work, begin, finish
from rave_dist.conversion.on_ray import convert_corpus
from rave_dist.errors import ConversionError, StoreError
from rave_dist.identity import hash_file
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard, ModelFile
from rave_dist.storage.store import Store
from tests.marked_command import READY_SECONDS
from tests.processes import descendants
from tests.scripted_models import Fussy

pytestmark = pytest.mark.usefixtures("ray_session")
Publish = Callable[..., ModelCard]


def convert(store: Store, card: ModelCard, given: str, output: str, **options: object) -> ConversionRecord:
    return convert_corpus(store, plan_conversion(card, [given], output, ConversionParameters(format="flac")), **options)  # type: ignore[arg-type]


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Seven short ones, and one that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "recordings"
    for index, (rate, channels) in enumerate(
        [(44100, 1), (48000, 2), (8000, 1), (96000, 1), (44100, 1), (44100, 2), (22050, 1)]
    ):
        path = folder / f"day {index % 3}" / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.standard_normal((rate * (index + 1) // 2, channels)) * 0.1, rate)
    (folder / "notes.wav").write_text("not a sound")
    return folder


def test_one_worker_or_two_chunks_short_or_long(
    local_store: Store, publish_tiny: Publish, recordings: Path, tmp_path: Path
) -> None:
    card = publish_tiny(local_store, "drum")
    before = hashes(recordings)
    seen: list[tuple[int, int]] = []
    one = convert(local_store, card, str(recordings), str(tmp_path / "one"), workers=1, progress=lambda *n: seen.append(n))
    two = convert(local_store, card, str(recordings), str(tmp_path / "two"), workers=2)
    short = convert(local_store, card, str(recordings), str(tmp_path / "short"), workers=2, chunk_seconds=0.7)
    assert [(r.converted, r.skipped, len(r.failed)) for r in (one, two, short)] == [(7, 0, 1)] * 3
    assert one.seconds == pytest.approx(14.0)
    assert seen == [(n, 8) for n in range(9)]
    assert hashes(recordings) == before
    assert len(hashes(tmp_path / "one")) == 7
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    for path in (tmp_path / "one").rglob("*.flac"):
        whole, chunked = (soundfile.read(p)[0] for p in (path, tmp_path / "short" / path.relative_to(tmp_path / "one")))
        assert np.abs(whole - chunked).max() <= 1e-5 * np.abs(whole).max() + 2**-15, "apart by rounding to 16 bits at most"
    assert local_store.read_json(f"conversions/{one.id}/record.json") == one.to_json()


def test_ray_and_the_command_s_own_process_write_the_same_bytes_and_one_resumes_the_other(
    local_store: Store, publish_tiny: Publish, recordings: Path, tmp_path: Path
) -> None:
    card = publish_tiny(local_store, "drum")
    plan = plan_conversion(card, [str(recordings)], str(tmp_path / "here"), ConversionParameters(format="flac"))
    job = begin(local_store, [plan], chunk_seconds=DEFAULT_CHUNK_SECONDS)
    (here,) = finish(job, in_process.convert_all(job))
    there = convert(local_store, card, str(recordings), str(tmp_path / "there"), workers=2)
    assert (here.converted, len(here.failed)) == (there.converted, len(there.failed)) == (7, 1)
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")
    made = hashes(tmp_path / "here")
    (tmp_path / "here" / "day 0" / "3.flac").unlink()
    again = convert(local_store, card, str(recordings), str(tmp_path / "here"), workers=1)
    assert (again.id, again.converted, again.skipped, len(again.failed)) == (here.id, 1, 6, 1)
    assert hashes(tmp_path / "here") == made


def test_a_rerun_converts_nothing_and_a_deleted_output_is_made_again(
    s3_store: Store, publish_tiny: Publish, recordings: Path
) -> None:
    """Everything on S3: the workers share nothing else."""
    card = publish_tiny(s3_store, "drum")
    for path in recordings.rglob("*.wav"):
        s3_store.upload(path, f"in/{path.relative_to(recordings)}")
    source, output = f"{s3_store.uri}/in", f"{s3_store.uri}/out"
    first = convert(s3_store, card, source, output, workers=2)
    assert (first.converted, first.skipped) == (7, 0)
    assert [item.source for item in first.failed] == [f"{source}/notes.wav"]
    tags = {entry.key: entry.tag for entry in s3_store.list("out")}
    again = convert(s3_store, card, source, output, workers=1)
    assert (again.id, again.converted, again.skipped, len(again.failed)) == (first.id, 0, 7, 1)
    s3_store.delete("out/day 1/4.flac")
    third = convert(s3_store, card, source, output, workers=1)
    assert (third.converted, third.skipped) == (1, 6)
    assert {entry.key: entry.tag for entry in s3_store.list("out")} == tags


def count_alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The outputs of tasks that run outside the pool, each of which loads the model."""
    alone: list[str] = []
    real = on_ray._one_by_one

    def one_by_one(job: Job, works: list[Work], resources: dict[str, Any]) -> Iterator[Outcome]:
        alone.extend(work.task.output for work in works)
        return real(job, works, resources)

    monkeypatch.setattr(on_ray, "_one_by_one", one_by_one)
    return alone


@pytest.mark.parametrize("in_groups", [False, True], ids=["files", "groups as for a GPU"])
def test_a_killed_worker_stops_nothing(
    local_store: Store,
    publish_tiny: Publish,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_groups: bool,
) -> None:
    if in_groups:
        monkeypatch.setattr(on_ray, "_resources", lambda workers: (1, {"num_cpus": 0.4, "num_gpus": 0.0}))
    card = publish_tiny(local_store, "drum")
    soundfile.write(recordings / "long.wav", np.random.default_rng(1).standard_normal(60 * 44100) * 0.1, 44100)
    out = tmp_path / "out"
    killed = threading.Event()

    def kill() -> None:
        """Strikes in the middle of the long one, which is the first."""
        while not killed.is_set():
            if out.is_dir() and any(out.glob(".partial-*")):
                worker = descendants("MapWorker")[0]
                worker.kill()
                killed.set()
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    alone = count_alone(monkeypatch)
    record = convert(local_store, card, str(recordings), str(out), workers=1, chunk_seconds=0.1)
    assert killed.is_set()
    assert alone == ([] if in_groups else ["long.flac"]), "the others have a new pool; a group is divided for it"
    thread.join()
    assert (record.converted, record.skipped, len(record.failed)) == (8, 0, 1)
    assert sorted(p.name for p in out.rglob("*.*")) == [*(f"{n}.flac" for n in range(7)), "long.flac"], "and no leftovers"
    assert soundfile.info(out / "long.flac").frames == 60 * 44100


@pytest.fixture
def long_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150 s, five parts; a file of this size is not long, but is converted as if it were."""
    monkeypatch.setattr(on_ray, "is_long", lambda source: "long" in source.uri)
    path = tmp_path / "in" / "long.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(1).standard_normal((150 * 22050, 1)) * 0.1, 22050)
    soundfile.write(path.parent / "short.wav", np.random.default_rng(2).standard_normal(22050) * 0.1, 22050)
    return path


def test_a_long_file_is_spread_over_the_workers_to_the_same_bytes_and_survives_one(
    local_store: Store, publish_tiny: Publish, long_recording: Path, tmp_path: Path
) -> None:
    """A worker is killed in the middle: the run continues with the parts that are there."""
    card = publish_tiny(local_store, "drum")
    given = str(long_recording.parent)
    plan = plan_conversion(card, [given], str(tmp_path / "here"), ConversionParameters(format="flac"))
    job = begin(local_store, [plan], chunk_seconds=DEFAULT_CHUNK_SECONDS)
    (here,) = finish(job, in_process.convert_all(job))
    kept: list[str] = []

    def kill() -> None:
        while not kept:
            kept.extend(entry.key for entry in local_store.list("conversions") if entry.key.endswith(".npy"))
            time.sleep(0.01)
        descendants("_Player")[0].kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    there = convert(local_store, card, given, str(tmp_path / "there"), workers=2)
    thread.join(timeout=10)
    assert kept
    assert (here.converted, there.converted, there.failed) == (2, 2, ())
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")
    assert not [entry.key for entry in local_store.list("conversions") if entry.key.endswith(".npy")], "no longer needed"


def test_several_models_on_ray_give_the_bytes_of_each_alone_also_from_groups_of_files_as_for_a_gpu(
    local_store: Store, publish_tiny: Publish, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [publish_tiny(local_store, name) for name in ("drum", "gong")]
    plans = plan_conversions(cards, [str(recordings)], str(tmp_path / "out"), ConversionParameters(format="flac"))
    job = begin(local_store, plans, chunk_seconds=DEFAULT_CHUNK_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "_resources", lambda workers: (1, {"num_cpus": 0.4, "num_gpus": 0.0}))
        records = finish(job, on_ray.convert_all(job))
    assert [(record.converted, len(record.failed)) for record in records] == [(7, 1)] * 2
    for card in cards:
        convert(local_store, card, str(recordings), str(tmp_path / "alone" / card.name), workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "alone")


def test_what_nobody_foresaw_is_one_file_s_failure(
    local_store: Store, publish_tiny: Publish, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.script(Fussy()).save(str(tmp_path / "fussy.ts"))
    local_store.upload(tmp_path / "fussy.ts", "models/drum/f055/drum.ts")
    file = ModelFile(
        key="models/drum/f055/drum.ts", sha256=hash_file(tmp_path / "fussy.ts"), bytes=(tmp_path / "fussy.ts").stat().st_size
    )
    card = publish_tiny(local_store, "drum").model_copy(update={"version": "f055", "files": {"offline": file}})
    soundfile.write(recordings / "loud.wav", np.full(44100, 0.95), 44100)
    alone = count_alone(monkeypatch)
    record = convert(local_store, card, str(recordings), str(tmp_path / "out"), workers=2, trust=True)
    assert record.converted + record.skipped == 7
    reasons = {Path(item.source).name: item.reason or "" for item in record.failed}
    assert set(reasons) == {"notes.wav", "loud.wav"}
    assert "too loud" in reasons["loud.wav"]
    assert alone == [], "the pool continues with the model that it has loaded"
    deadline = time.monotonic() + READY_SECONDS
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "the workers of the pool that failed still hold CPUs"
        time.sleep(0.2)


def test_what_concerns_every_file_is_said_once(
    local_store: Store, publish_tiny: Publish, recordings: Path, tmp_path: Path
) -> None:
    card = publish_tiny(local_store, "drum")
    local_store.write_bytes(card.files["offline"].key, b"not what was published")
    with pytest.raises(StoreError, match="not the published file"):
        convert(local_store, card, str(recordings), str(tmp_path / "out"))
    with pytest.raises(ConversionError, match="one worker"):
        convert(local_store, card, str(recordings), str(tmp_path / "out"), workers=0)
    with pytest.raises(ConversionError, match="shorter than one frame"):
        convert(local_store, card, str(recordings), str(tmp_path / "out"), chunk_seconds=0.001)
    assert not list((tmp_path / "out").rglob("*.flac"))
