"""A long recording in parts: the bytes of one process, and nothing that was played is played again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.dsp.chunks import Chunk
from rave_dist.audio.io.sources import AudioSource
from rave_dist.conversion import parts as parts_module
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, plan_conversion
from rave_dist.conversion.item import convert_source
from rave_dist.conversion.parts import LONG_SECONDS, Parts, PartsConverter, is_long, write_part
from rave_dist.conversion.stream import Played, Playing
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

CHUNK_SECONDS = 0.25
PART_SECONDS = 1.0


class Players:
    """Plays parts as other processes would: when the result is asked for. Counts."""

    def __init__(self, store: Store, converter: Converter) -> None:
        self.played: list[int] = []
        self.waiting = self.most_waiting = 0
        self.fails_at = -1
        self._store, self._converter = store, converter

    def play(self, key: str, part: list[Chunk], playing: Playing) -> Callable[[], Played]:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

        def result() -> Played:
            self.waiting -= 1
            number = int(Path(key).stem)
            if number == self.fails_at:
                raise KeyboardInterrupt
            self.played.append(number)
            played = self._converter.play_part(part, playing)
            write_part(self._store, key, played)
            return played

        return result


@pytest.fixture
def converter(scripted: Callable[..., tuple[Path, ModelCard]], monkeypatch: pytest.MonkeyPatch) -> Converter:
    monkeypatch.setattr(parts_module, "_PART_SECONDS", PART_SECONDS)
    return Converter(*scripted("frames"))


@pytest.fixture
def plan(converter: Converter, tmp_path: Path) -> Plan:
    """Of a stereo recording of 7.3 s, at another rate than the model's."""
    (tmp_path / "in").mkdir()
    samples = np.random.default_rng(0).standard_normal((int(7.3 * 22050), 2)) * 0.1
    soundfile.write(tmp_path / "in" / "long.wav", samples, 22050)
    return plan_conversion(converter.card, [str(tmp_path / "in")], str(tmp_path / "out"), ConversionParameters(format="flac"))


def convert(store: Store, plan: Plan, players: Players, *, ahead: int = 3) -> str:
    """Converts in parts; returns the output's hash."""
    parts = Parts(store, plan, plan.tasks[0], CHUNK_SECONDS)
    there = PartsConverter(plan.card, store, parts, players.play, ahead=ahead)
    (outcome,) = convert_source(store, plan.tasks[0], [(plan, there)], chunk_seconds=CHUNK_SECONDS)
    assert outcome.item.state == "converted"
    return hash_file(outcome.item.output)


@pytest.fixture
def whole(local_store: Store, plan: Plan, converter: Converter, tmp_path: Path) -> str:
    """The hash of the output of one process."""
    here = replace(plan, id="elsewhere", output=Store(str(tmp_path / "whole")))
    (outcome,) = convert_source(local_store, plan.tasks[0], [(here, converter)], chunk_seconds=CHUNK_SECONDS)
    return hash_file(outcome.item.output)


@pytest.mark.parametrize("ahead", [1, 2, 5, 100])
def test_the_bytes_are_those_of_one_process(any_store: Store, plan: Plan, converter: Converter, whole: str, ahead: int) -> None:
    players = Players(any_store, converter)
    assert convert(any_store, plan, players, ahead=ahead) == whole
    assert players.played == list(range(8)), "each part once"
    assert players.most_waiting == min(ahead, 8)


def test_after_a_kill_only_the_parts_in_progress_are_played_again(
    any_store: Store, plan: Plan, converter: Converter, whole: str, tmp_path: Path
) -> None:
    first = Players(any_store, converter)
    first.fails_at = 5
    with pytest.raises(KeyboardInterrupt):
        convert(any_store, plan, first)
    assert not any((tmp_path / "out").rglob("*.flac"))
    second = Players(any_store, converter)
    assert convert(any_store, plan, second) == whole
    assert first.played + second.played == list(range(8))


def test_a_part_that_was_removed_is_played_again(local_store: Store, plan: Plan, converter: Converter, whole: str) -> None:
    players = Players(local_store, converter)
    convert(local_store, plan, players)
    parts = Parts(local_store, plan, plan.tasks[0], CHUNK_SECONDS)
    found = parts.found()
    assert len(found) == 8
    local_store.delete(parts.key(2))
    listed_before = PartsConverter(plan.card, local_store, parts, players.play, ahead=2)
    parts.found = lambda: found  # type: ignore[method-assign]
    players.played.clear()
    local_store.delete(plan.journal_key(plan.tasks[0]))
    (outcome,) = convert_source(local_store, plan.tasks[0], [(plan, listed_before)], chunk_seconds=CHUNK_SECONDS)
    assert hash_file(outcome.item.output) == whole
    assert players.played == [2]
    parts.delete()
    assert not list(local_store.list(parts.folder))


def test_parts_of_another_content_or_of_other_chunks_are_not_used(local_store: Store, plan: Plan) -> None:
    task = plan.tasks[0]
    changed = replace(task, source=replace(task.source, fingerprint="another"))
    folders = {
        Parts(local_store, plan, task, CHUNK_SECONDS).folder,
        Parts(local_store, plan, changed, CHUNK_SECONDS).folder,
        Parts(local_store, plan, task, 2 * CHUNK_SECONDS).folder,
        Parts(local_store, replace(plan, id="another"), task, CHUNK_SECONDS).folder,
    }
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("name", "megabytes", "long"),
    [("a.wav", 60, True), ("a.wav", 40, False), ("s3://bucket/a.MP3", 6, True), ("a.mp3", 4, False), ("a.flac", 100, True)],
)
def test_whether_a_recording_is_long_follows_from_its_size(name: str, megabytes: int, long: bool) -> None:
    assert LONG_SECONDS == 300
    assert is_long(AudioSource(name, megabytes * 1_000_000, "x", name)) is long
