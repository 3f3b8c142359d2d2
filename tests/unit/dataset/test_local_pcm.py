"""A dataset's copy on this machine: the same samples, read from the store once, in constant memory, shared, bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rave_dist import isolated
from rave_dist.dataset import local_pcm
from rave_dist.dataset.read import Segment, open_segments, outline, read_segments
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.split import read_held_out, split_dataset
from rave_dist.errors import DatasetError, StoreError
from rave_dist.records import DatasetManifest
from rave_dist.storage.store import Store
from rave_dist.training.data.loader import Windows
from tests.file_systems import tmpfs

RATE = 44_100


class CountingStore(Store):
    """A store that notes which objects are opened."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.opened: list[str] = []

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        self.opened.append(key)
        with super().open(key) as file:
            yield file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("RAVE_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pcm"


@pytest.fixture
def dataset(
    noise: Callable[..., np.ndarray], write: Callable[..., Path], recordings: Path, ingest_here: Any, tmp_path: Path
) -> tuple[CountingStore, DatasetManifest]:
    """Six stereo recordings, one of them longer than a row, one with a pause that is left out."""
    for number, seconds in enumerate((12.0, 3.0, 2.0, 2.5, 1.5)):
        write(f"{number}.wav", noise(seconds, number, channels=2))
    pause = np.zeros((3 * RATE, 2), np.int16)
    write("pause.wav", np.concatenate([noise(2.0, 8, channels=2), pause, noise(4.0, 9, channels=2)]))
    store = CountingStore(str(tmp_path / "store"))
    manifest = ingest_here(store, [recordings], Recipe(sample_rate=RATE, channels=2))
    store.opened.clear()
    return store, manifest


def samples(segments: list[Segment]) -> list[tuple[str, int, npt.NDArray[np.int16]]]:
    return [(segment.source_id, segment.start, np.asarray(segment.pcm)) for segment in segments]


def assert_same(one: list[Segment], other: list[Segment]) -> None:
    assert len(one) == len(other) > 0
    for (source, start, pcm), (other_source, other_start, other_pcm) in zip(samples(one), samples(other), strict=True):
        assert (source, start) == (other_source, other_start)
        np.testing.assert_array_equal(pcm, other_pcm, strict=True)


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_the_copy_has_the_samples_of_the_store(dataset: tuple[CountingStore, DatasetManifest]) -> None:
    store, manifest = dataset
    in_memory = read_segments(store, manifest)
    assert sum(segment.pcm.shape[1] for segment in in_memory) > 26 * RATE
    assert len(in_memory) == 7
    on_disk = open_segments(store, manifest)
    assert_same(on_disk, in_memory)
    part = on_disk[0].pcm[:, 1000:3000][:, 500:]
    assert part.shape == (2, 1500)
    assert part.nbytes == 2 * 2 * 1500
    np.testing.assert_array_equal(np.asarray(part), np.asarray(in_memory[0].pcm)[:, 1500:3000])
    assert np.asarray(on_disk[0].pcm[:, 5:5]).shape == (2, 0)


@pytest.mark.parametrize("resident", [True, False])
def test_a_run_draws_the_same_batches_from_the_copy_as_from_memory(
    dataset: tuple[CountingStore, DatasetManifest], resident: bool
) -> None:
    store, manifest = dataset
    settings: Any = {"window": 8192, "batch": 8, "seed": 3, "device": "cpu", "resident": resident}
    streamed, in_memory = (
        Windows(segments, **settings) for segments in (open_segments(store, manifest), read_segments(store, manifest))
    )
    for _ in range(6):
        assert torch.equal(streamed.next_batch(), in_memory.next_batch())
        assert streamed.places == in_memory.places


def test_the_store_is_read_once_however_often_the_audio_is(dataset: tuple[CountingStore, DatasetManifest]) -> None:
    store, manifest = dataset
    parts = split_dataset(store, manifest, window=8192)
    again = split_dataset(store, manifest, window=8192)
    windows = Windows(parts.train, window=8192, batch=8, seed=0, device="cpu")
    for _ in range(60):  # twice the audio
        windows.next_batch()
    assert_same(again.validation, parts.validation)
    del parts, again, windows
    split_dataset(store, manifest, window=8192)  # a later run
    assert sorted(store.opened) == sorted(shard.key for shard in manifest.shards)


def test_held_out_audio_is_read_without_a_copy_and_without_the_rest(
    noise: Callable[..., np.ndarray], write: Callable[..., Path], ingest_here: Any, tmp_path: Path, cache: Path
) -> None:
    long = noise(95.0, 1)
    store, manifests = CountingStore(str(tmp_path / "store")), []
    for number in (1, 2):  # the second dataset has a shard of its own
        paths = [write("long.wav", long)] + ([write("short.wav", noise(1.0, 2))] if number == 2 else [])
        manifests.append(ingest_here(store, paths, Recipe(sample_rate=RATE, channels=1)))
    store.opened.clear()
    (held_out,) = read_held_out(store, manifests[1], window=8192)
    assert held_out.start % (10 * RATE)  # from the middle of a row
    (expected,) = split_dataset(store, manifests[1], window=8192).validation
    assert held_out.start == expected.start
    np.testing.assert_array_equal(held_out.pcm, np.asarray(expected.pcm))
    np.testing.assert_array_equal(held_out.pcm, long.T[:, held_out.start :])
    assert len(manifests[1].shards) == 2
    assert len(store.opened) == 3  # one shard, then both for the copy


def test_too_little_audio_is_refused_before_it_is_copied(
    noise: Callable[..., np.ndarray], write: Callable[..., Path], ingest_here: Any, local_store: Store, cache: Path
) -> None:
    manifest = ingest_here(local_store, [write("short.wav", noise(1.0))])
    with pytest.raises(DatasetError, match=r"only 1\.00 s of audio"):
        split_dataset(local_store, manifest, window=RATE)
    assert not cache.exists()


def test_a_missing_shard_leaves_no_copy(dataset: tuple[CountingStore, DatasetManifest], cache: Path) -> None:
    store, manifest = dataset
    store.delete(manifest.shards[0].key)
    with pytest.raises(DatasetError, match="a shard of the dataset is missing"):
        open_segments(store, manifest)
    assert files(cache) == []


def test_processes_that_start_together_write_one_copy(
    dataset: tuple[CountingStore, DatasetManifest], cache: Path, tmp_path: Path
) -> None:
    """Each process counts what it opens; together they open each shard once."""
    store, manifest = dataset
    program = (
        "import sys, zlib, numpy as np\n"
        "from rave_dist.dataset.read import load_manifest, open_segments\n"
        "from rave_dist.storage.store import Store\n"
        "opened, opens = [], Store.open\n"
        "Store.open = lambda store, key: (opened.append(key), opens(store, key))[1]\n"
        "store = Store(sys.argv[1])\n"
        "manifest = load_manifest(store, 'drum', sys.argv[2])\n"
        "segments = open_segments(store, manifest)\n"
        "print(len(opened), [zlib.crc32(np.asarray(s.pcm)) for s in segments])\n"
    )
    command = [sys.executable, "-c", program, store.uri, manifest.id]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split(" ", 1) for process in processes]
    assert sum(int(count) for count, _ in answers) == len(manifest.shards)
    assert answers[0][1] == answers[1][1]
    assert len(files(cache)) == 1


def test_a_killed_writer_leaves_nothing_behind(dataset: tuple[CountingStore, DatasetManifest], cache: Path) -> None:
    store, manifest = dataset
    program = (
        "import sys, time\n"
        "from rave_dist.dataset.local_pcm import open_pcm\n"
        "open_pcm('half', [(1, 1000)], lambda put: (print('writing', flush=True), time.sleep(600)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        kept = open_segments(store, manifest)
        assert "half.partial" in files(cache)  # it is at work
        writer.send_signal(signal.SIGKILL)
    assert "half.partial" in files(cache)
    del kept
    assert len(files(cache)) == 1
    assert not files(cache)[0].endswith(".partial")


def test_a_copy_ends_when_it_is_asked_to_stop(dataset: tuple[CountingStore, DatasetManifest], cache: Path) -> None:
    store, manifest = dataset
    answers = iter([False, False, True])
    with pytest.raises(isolated.Stopped):
        open_segments(store, manifest, stop=lambda: next(answers))
    assert next(answers, None) is None
    assert files(cache) == []
    assert_same(open_segments(store, manifest, stop=lambda: False), read_segments(store, manifest))
    open_segments(store, manifest, stop=lambda: pytest.fail("there is nothing to copy"))


def test_waiting_for_the_copy_of_another_process_ends_too(cache: Path) -> None:
    """And leaves the copy of that process as it is."""

    def write(put: local_pcm.Put) -> None:
        answers = iter([False, True])
        with pytest.raises(isolated.Stopped):
            local_pcm.open_pcm("one", [(1, 4)], lambda put: pytest.fail("it is being written"), stop=lambda: next(answers))
        assert files(cache) == ["one.partial"]
        put(0, 0, np.array([[1, 2, 3, 4]], np.int16))

    (pcm,) = local_pcm.open_pcm("one", [(1, 4)], write)
    assert np.asarray(pcm).tolist() == [[1, 2, 3, 4]]


def test_the_copy_of_a_killed_writer_is_written_again(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "again.partial").write_bytes(b"half of it, and longer than the whole")
    (pcm,) = local_pcm.open_pcm("again", [(1, 4)], lambda put: put(0, 0, np.array([[1, 2, 3, 4]], np.int16)))
    assert np.asarray(pcm).tolist() == [[1, 2, 3, 4]]
    assert files(cache) == ["again"]
    assert (cache / "again").stat().st_size == 8


def test_the_copy_that_was_cut_is_written_again(cache: Path) -> None:
    def ones(put: local_pcm.Put) -> None:
        put(0, 0, np.ones((1, 4), np.int16))

    (pcm,) = local_pcm.open_pcm("cut", [(1, 4)], ones)
    os.truncate(cache / "cut", 6)
    with pytest.raises(StoreError, match="was cut"):
        np.asarray(pcm)
    (pcm,) = local_pcm.open_pcm("cut", [(1, 4)], ones)
    assert np.asarray(pcm).tolist() == [[1, 1, 1, 1]]


def test_a_copy_that_is_completed_after_it_was_looked_for_is_not_written_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.open

    def too_early(path: Path, flags: int, mode: int = 0o777) -> int:
        if path != cache / "late":
            return look(path, flags, mode)
        monkeypatch.undo()
        monkeypatch.setenv("RAVE_DIST_CACHE", str(cache.parent))
        local_pcm.open_pcm("late", [(1, 2)], lambda put: put(0, 0, np.ones((1, 2), np.int16)))  # by another process
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "open", too_early)
    (pcm,) = local_pcm.open_pcm("late", [(1, 2)], lambda put: pytest.fail("written again"))
    assert np.asarray(pcm).tolist() == [[1, 1]]
    assert files(cache) == ["late"]


def test_unused_copies_are_kept_up_to_a_size_the_last_used_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pcm, "KEPT_BYTES", 2 * 2000)

    def silence(put: local_pcm.Put) -> None:
        put(0, 0, np.zeros((1, 1000), np.int16))

    for number, name in enumerate(["first", "second", "third"]):
        local_pcm.open_pcm(name, [(1, 1000)], silence)
        os.utime(cache / name, (number, number))
    assert files(cache) == ["second", "third"]
    in_use = local_pcm.open_pcm("second", [(1, 1000)], silence)
    for name in ("fourth", "fifth"):
        local_pcm.open_pcm(name, [(1, 1000)], silence)
        time.sleep(0.01)
    assert files(cache) == ["fifth", "fourth", "second"]
    assert not np.asarray(in_use[0]).any()


def test_a_full_disk_is_named_and_unused_copies_make_room(
    dataset: tuple[CountingStore, DatasetManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = dataset
    needed = sum(segment.pcm.nbytes for segment in outline(manifest))
    with tmpfs(tmp_path, megabytes=needed // 2**20 + 2) as disk:
        monkeypatch.setenv("RAVE_DIST_CACHE", str(disk))
        local_pcm.open_pcm("unused", [(1, 2**20)], lambda put: put(0, 0, np.ones((1, 2**20), np.int16)))
        segments = open_segments(store, manifest)
        assert len(files(disk / "pcm")) == 1
        (disk / "recording.wav").write_bytes(bytes(2**20))
        with pytest.raises(StoreError) as caught:
            local_pcm.open_pcm("more", [(1, 2**20)], lambda put: None)
        assert caught.value.what == "training needs 2 MiB of this machine's disk for a copy of the dataset, but 0 MiB are free"
        assert caught.value.where == str(disk / "pcm")
        assert "RAVE_DIST_CACHE" in caught.value.fix
        assert_same(segments, read_segments(store, manifest))
        assert len(files(disk / "pcm")) == 1
        del segments


def test_a_disk_that_fills_up_while_it_is_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tmpfs(tmp_path) as disk:
        monkeypatch.setenv("RAVE_DIST_CACHE", str(disk))

        def fill(put: local_pcm.Put) -> None:
            (disk / "recording.wav").write_bytes(bytes(2**19))  # where the disk reserves nothing
            put(0, 100, np.ones((1, 2**20), np.int16))

        with pytest.raises(StoreError, match="training needs 0 MiB") as caught:
            local_pcm.open_pcm("beyond", [(1, 100)], fill)
        assert "free space" in caught.value.fix
        assert files(disk / "pcm") == []


def test_a_cache_that_cannot_be_written_is_in_the_folder_of_temporary_files(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder would be")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = local_pcm.pcm_folder()
    assert folder.is_dir()
    assert folder.parent.parent == tmp_path


def test_the_memory_of_a_process_does_not_depend_on_the_length_of_the_audio(tmp_path: Path) -> None:
    """In a process that may allocate 96 MiB beyond its start, 256 MiB are copied and drawn from."""
    program = (
        "import resource, sys, numpy as np, psutil, torch\n"
        "from rave_dist.dataset.read import Segment\n"
        "from rave_dist.dataset import local_pcm\n"
        "from rave_dist.training.data.loader import Windows\n"
        "torch.set_num_threads(1)\n"
        "def fill(put):\n"
        "    row = np.arange(2**20, dtype=np.int16)[None]\n"
        "    for place in range(0, 2**27, 2**20): put(0, place, row)\n"
        "def data(): return psutil.Process().memory_full_info().data\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (data() + 96 * 2**20, resource.RLIM_INFINITY))\n"
        "try: np.ones(2**27, np.int16)\n"
        "except MemoryError: print('limited')\n"
        "(pcm,) = local_pcm.open_pcm('long', [(1, 2**27)], fill)\n"
        "windows = Windows([Segment('a', 0, pcm)], window=2**17, batch=8, seed=0, device='cpu')\n"
        "for _ in range(20): windows.next_batch()\n"
        "print(len(windows.places))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["limited", "8"], done.stderr[-2000:]
