"""Which conversions are small enough for one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import AudioSource, list_sources
from rave_dist.conversion.corpus import Plan, Task
from rave_dist.conversion.estimate import Length, is_small, takes_a_moment
from rave_dist.conversion.job import Job, Work
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

PLAIN = ConversionParameters(format="flac")


@pytest.fixture
def card(scripted: Callable[..., tuple[Path, ModelCard]]) -> ModelCard:
    return scripted("mirror", sample_rate=44100)[1]


def job(card: ModelCard, sources: Sequence[AudioSource]) -> Job:
    """A job of which nothing is done."""
    works = tuple(Work(Task(source, f"{source.relative}.flac"), (0,)) for source in sources)
    return Job(Store("store"), (Plan("id", card, PLAIN, Store("out"), ()),), (0,), 20.0, works)


@pytest.mark.parametrize(
    ("lengths", "channels", "small"),
    [
        ([], None, True),
        ([Length(229)], None, True),
        ([Length(250)], None, False),
        ([Length(100, channels=2)], None, True),
        ([Length(130, channels=2)], None, False),
        ([Length(130, channels=2)], 1, True),
        ([Length(3)] * 70, None, True),
        ([Length(3)] * 90, None, False),
        ([Length(0.0)] * 1000, None, True),
    ],
)
def test_seconds_of_channels_decide(card: ModelCard, lengths: list[Length], channels: int | None, small: bool) -> None:
    assert takes_a_moment(ConversionParameters(channels=channels), ((length, [card]) for length in lengths)) is small


def test_a_stereo_model_takes_channels_in_pairs_and_a_higher_rate_takes_longer(card: ModelCard) -> None:
    stereo = card.model_copy(update={"channels": 2})
    assert takes_a_moment(PLAIN, [(Length(229, channels=2), [stereo])])
    assert not takes_a_moment(PLAIN, [(Length(229, channels=3), [stereo])])
    assert not takes_a_moment(PLAIN, [(Length(229), [card.model_copy(update={"sample_rate": 96000})])])


def test_every_model_takes_its_time(card: ModelCard) -> None:
    assert takes_a_moment(PLAIN, [(Length(30), [card] * 7)])
    assert not takes_a_moment(PLAIN, [(Length(30), [card] * 9)])


def test_no_more_sources_are_opened_than_the_answer_needs(card: ModelCard) -> None:
    def endless() -> Iterator[tuple[Length, list[ModelCard]]]:
        while True:
            yield Length(10), [card]

    assert not takes_a_moment(PLAIN, endless())


def test_lengths_come_from_headers_and_a_file_that_is_none_counts_nothing(card: ModelCard, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(300 * 8000), 8000)  # 300 s in some hundred bytes
    (tmp_path / "notes.wav").write_text("not a sound\n" * 200_000)

    def small(*names: str) -> bool:
        return is_small(job(card, list_sources([str(tmp_path / name) for name in names])))

    assert not small("long.flac")
    assert small("notes.wav")


def test_many_files_or_large_remote_ones_are_a_corpus(card: ModelCard) -> None:
    def remote(count: int, size: int) -> Job:
        return job(card, [AudioSource(f"s3://bucket/{n}.ogg", size, "x", f"{n}.ogg") for n in range(count)])

    assert is_small(remote(3, 500_000))
    assert not is_small(remote(1, 5_000_000)), "whose headers would have to be fetched"
    assert not is_small(remote(201, 1))
