"""Recordings of a laptop in the store: each content once, under its own name, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import find_sources, list_sources, local_copy
from rave_dist.checks.recordings import open_recordings
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import Prepared, prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import AudioError
from rave_dist.library.manifest import Library
from rave_dist.maintenance.prune import find_removable, remove
from rave_dist.maintenance.verify import Part, verify
from rave_dist.progress import SILENT, Silent
from rave_dist.records import UPLOADS, DatasetManifest
from rave_dist.storage.store import Store
from rave_dist.submission.upload import upload_recordings

RATE = 44100
RECIPE = Recipe(sample_rate=RATE, channels=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of two drums: three contents in four files, and something that is none."""
    for number, name in enumerate(("low/a.wav", "low/Ünïcode (2).WAV", "high/b.flac")):
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = np.random.default_rng(number).uniform(-0.3, 0.3, RATE * (number + 1))
        soundfile.write(path, sound, RATE, format="FLAC" if name.endswith("flac") else "WAV")
    (tmp_path / "recordings/high/copy of a.wav").write_bytes((tmp_path / "recordings/low/a.wav").read_bytes())
    (tmp_path / "recordings/high/notes.txt").write_text("loud")
    return tmp_path / "recordings"


def _library(store: Store, folder: Path, **more: str) -> Library:
    sources = {"low": str(folder / "low"), "high": str(folder / "high"), **more}
    instruments = {name: {"sources": [source]} for name, source in sources.items()}
    return Library.from_dict({"name": "drums", "store": store.uri, "instruments": instruments})


def _objects(store: Store) -> dict[str, str]:
    return {entry.key: entry.tag for entry in store.list(UPLOADS)}


def _ingest(store: Store, sources: tuple[str, ...]) -> tuple[DatasetManifest, int]:
    """Ingest of one instrument without Ray, and how many recordings were read."""
    listing = find_sources(sources)
    earlier = load_earlier(store, "high", RECIPE)
    known = [Prepared(record=record) for source in listing.sources if (record := earlier.record(source))]
    fresh = [source for source in listing.sources if earlier.record(source) is None]
    outcomes, shards = prepare(fresh, store=store, instrument="high", recipe=RECIPE, known=earlier.stored_ids)
    made = {"instrument": "high", "recipe": RECIPE, "credit": {}, "earlier": earlier, "listing": listing}
    manifest = assemble([*known, *outcomes], [tuple(shards)], **made)  # type: ignore[arg-type]
    return write_manifest(store, manifest, "drums"), len(fresh)


class Bar(Silent):
    """Notes the stages and their last advance."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int, str]] = {}
        self.said: list[str] = []

    def stage(self, name: str) -> None:
        self.stages[name] = (0, 0, "")

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        self.stages[list(self.stages)[-1]] = (done, total, unit)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_an_uploaded_recording_has_the_name_and_the_bytes_of_its_own_machine(any_store: Store, folder: Path) -> None:
    library = _library(any_store, folder)
    sources = upload_recordings(library, library.instruments)
    assert len(_objects(any_store)) == 3  # of four files
    for name in library.instruments:
        here, there = find_sources(library.sources(name)), find_sources(sources[name])
        assert [(s.name, s.fingerprint, s.bytes, s.relative) for s in there.sources] == [
            (s.name, s.fingerprint, s.bytes, s.relative) for s in here.sources
        ]
        assert (there.passed_over, there.notes) == (here.passed_over, here.notes)
        assert [(r.source.name, r.seconds, r.error) for r in open_recordings(there.sources)] == [
            (r.source.name, r.seconds, None) for r in open_recordings(here.sources)
        ]
        for one, other in zip(here.sources, there.sources, strict=True):
            assert other.uri.startswith(any_store.address(UPLOADS))
            with local_copy(other.uri) as copy:
                assert copy.read_bytes() == Path(one.uri).read_bytes()


def test_the_same_dataset_whether_it_was_uploaded_or_not_and_nothing_is_read_again(local_store: Store, folder: Path) -> None:
    library = _library(local_store, folder)
    sources = upload_recordings(library, library.instruments)
    there, read = _ingest(local_store, sources["high"])
    assert read == 2
    assert [source.source for source in there.sources] == [str(folder / "high/b.flac"), str(folder / "high/copy of a.wav")]
    assert _ingest(local_store, library.sources("high")) == (there, 0)


def test_nothing_is_stored_twice_and_a_new_recording_alone(any_store: Store, folder: Path) -> None:
    library = _library(any_store, folder)
    sources = upload_recordings(library, library.instruments)
    before = _objects(any_store)
    again = Bar()
    assert upload_recordings(library, library.instruments, progress=again) == sources
    assert _objects(any_store) == before
    assert "uploading recordings" not in again.stages
    (folder / "low/new.wav").write_bytes(b"RIFF" + bytes((3 << 20) + 100))
    bar = Bar()
    upload_recordings(library, library.instruments, progress=bar)
    after = _objects(any_store)
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
    assert bar.stages["uploading recordings"] == (4, 4, "MiB")  # of the new one, rounded up


def test_an_interrupted_upload_is_resumed(any_store: Store, folder: Path) -> None:
    class Stopping(Bar):
        def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
            if list(self.stages)[-1] == "uploading recordings":
                raise KeyboardInterrupt

    library = _library(any_store, folder)
    with pytest.raises(KeyboardInterrupt):
        upload_recordings(library, library.instruments, progress=Stopping())
    before = _objects(any_store)
    assert before
    assert list(any_store.list("recordings/listings")) == []
    sources = upload_recordings(library, library.instruments)
    assert before.items() <= _objects(any_store).items()
    assert len(list_sources([address for name in sources for address in sources[name]])) == 4


def test_an_object_of_another_size_is_replaced(local_store: Store, folder: Path) -> None:
    library = _library(local_store, folder)
    upload_recordings(library, library.instruments)
    key = next(iter(_objects(local_store)))
    whole = local_store.read_bytes(key)
    local_store.write_bytes(key, whole[:100])
    upload_recordings(library, library.instruments)
    assert local_store.read_bytes(key) == whole


def test_a_recording_that_is_written_meanwhile_is_named_and_the_others_are_uploaded(local_store: Store, folder: Path) -> None:
    class Recording(Bar):
        def stage(self, name: str) -> None:
            super().stage(name)
            if name == "reading recordings":
                with open(folder / "low/a.wav", "ab") as file:
                    file.write(bytes(1000))

    library = _library(local_store, folder)
    sources = upload_recordings(library, ["low"], progress=Recording())
    listing = find_sources(sources["low"])
    assert [source.relative for source in listing.sources] == ["Ünïcode (2).WAV"]
    (passed,) = listing.passed_over
    assert passed.missing
    assert passed.names == (str(folder / "low/a.wav"),)


def test_an_instrument_without_recordings_stops_no_other(local_store: Store, folder: Path) -> None:
    library = _library(local_store, folder, gone=str(folder / "gone"), remote="s3://bucket/elsewhere")
    bar = Bar()
    sources = upload_recordings(library, library.instruments, progress=bar)
    assert sources["gone"] == (str(folder / "gone"),)
    assert sources["remote"] == ("s3://bucket/elsewhere",)
    (said,) = bar.said
    assert said.startswith("gone: no recording matches")
    with pytest.raises(AudioError, match="no recording matches"):
        upload_recordings(library, ["gone"], progress=SILENT)


def test_verify_and_prune_know_uploads(any_store: Store, folder: Path) -> None:
    library = _library(any_store, folder)
    upload_recordings(library, library.instruments)
    whole = verify(any_store, part=Part(1, 1))
    assert (whole.problems, whole.files_read) == ({}, 3)
    assert find_removable(any_store) == []
    (folder / "high/b.flac").unlink()
    upload_recordings(library, library.instruments)
    (item,) = find_removable(any_store)
    assert (item.kind, item.place.endswith(".flac")) == ("recordings", True)
    remove(any_store, item)
    assert verify(any_store).ok
    any_store.delete(next(iter(_objects(any_store))))
    assert not verify(any_store).ok


def test_a_listing_that_is_gone_says_what_to_do(local_store: Store) -> None:
    with pytest.raises(AudioError, match="no recordings were uploaded") as refused:
        list_sources([local_store.address("recordings/listings/drums/low.json")])
    assert "rave-dist submit" in refused.value.fix
