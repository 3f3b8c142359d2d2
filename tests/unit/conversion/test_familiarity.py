"""Familiarity in conversions: scores in the journal, and silence where the recording is foreign, to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rave_dist.audio.synthesis import bell, pink_noise
from rave_dist.audio.types import Audio
from rave_dist.conversion import parts as parts_module
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion, read_entry
from rave_dist.conversion.item import convert_source
from rave_dist.conversion.parts import Parts, PartsConverter, write_part
from rave_dist.conversion.stream import Played, StreamConverter
from rave_dist.conversion.table import read_table, write_table
from rave_dist.dataset.read import Segment
from rave_dist.errors import ConversionError
from rave_dist.records import ConversionItem, ConversionParameters, ModelCard, Treatment
from rave_dist.registry.familiarity import measure_familiarity
from rave_dist.storage.store import Store

RATE = 44100
Convert = Callable[..., ConversionItem]


def bells(seed: int, seconds: float) -> Audio:
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * RATE), np.float32)
    for start in np.arange(0, seconds - 0.3, 0.35):
        note = bell(float(rng.choice([400, 500, 600])), 1.5, sample_rate=RATE, rng=rng)
        first = round((start + rng.uniform(0, 0.3)) * RATE)
        sound[first : first + len(note)] += 0.2 * note[: len(sound) - first]
    return sound


def segment(name: str, sound: Audio) -> Segment:
    return Segment(name, 0, (sound[None] * 32767).round().astype(np.int16))


@pytest.fixture(scope="module")
def card(tiny_models: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """A model whose training set is bells."""
    published: ModelCard = tiny_models[0].publish(Store(str(tmp_path_factory.mktemp("store"))))
    known = measure_familiarity(
        tiny_models[0].offline,
        [segment("train", bells(1, 20))],
        [segment("held out", bells(2, 6))],
        hop=published.hop,
        sample_rate=RATE,
    )
    assert (known.seconds, known.held_out_seconds) == (20, 6)
    return published.model_copy(update={"familiarity": known})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four seconds of bells, four of noise, and a little more than three of bells."""
    noise = 0.1 * pink_noise(4 * RATE, np.random.default_rng(3))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "take.wav"
    soundfile.write(path, np.concatenate([bells(4, 4), noise, bells(5, 3.2)]), RATE, subtype="PCM_16")
    return path


@pytest.fixture
def run(card: ModelCard, tiny_model: Any, recording: Path, local_store: Store, tmp_path: Path) -> Convert:
    """Converts the recording; returns the journal's entry."""
    loaded = Converter(tiny_model.offline, card)

    def convert(name: str, *, chunk: float = 3.0, converter: StreamConverter = loaded, **parameters: Any) -> ConversionItem:
        given = ConversionParameters(format="flac", **parameters)
        plan = plan_conversion(converter.card, [str(recording)], str(tmp_path / name), given)
        (outcome,) = convert_source(local_store, plan.tasks[0], [(plan, converter)], chunk_seconds=chunk)
        assert outcome.item.scores == "", "the record of an archive does not hold them"
        entry = read_entry(local_store, plan, plan.tasks[0])
        assert entry is not None
        assert entry.state == "converted", entry.reason
        return entry

    return convert


def scores(item: ConversionItem) -> list[int]:
    return [int(item.scores[at : at + 2]) for at in range(0, len(item.scores), 2)]


def test_the_journal_tells_bells_from_noise_each_half_second(run: Convert) -> None:
    item = run("out.flac")
    found = scores(item)
    assert len(found) == 23
    assert min(*found[:7], *found[17:]) > 3 * max(found[9:15])
    assert item.familiarity == pytest.approx(np.mean(found) / 100, abs=0.01)
    assert item.out_of_depth_seconds == sum(score < 50 for score in found) / 2


def test_only_above_silences_the_noise_and_nothing_else(run: Convert, tmp_path: Path) -> None:
    run("plain.flac")
    item = run("above.flac", treatment=Treatment(only_above=0.1))
    plain, above = (soundfile.read(tmp_path / f"{name}.flac")[0] for name in ("plain", "above"))
    assert len(above) == len(plain)
    kept = np.repeat(np.array(scores(item)) >= 10, RATE // 2)[: len(plain)]
    assert kept[: 3 * RATE].all()
    np.testing.assert_array_equal(above[: 3 * RATE], plain[: 3 * RATE])
    assert not above[5 * RATE : 7 * RATE].any()
    assert np.abs(plain[5 * RATE : 7 * RATE]).max() > 0.001
    assert not item.problems


@pytest.mark.parametrize(
    "treatment", [Treatment(only_above=0.3), Treatment(only_above=0.3, gate=6, mix=0.5, match_loudness="file")]
)
def test_scores_and_samples_do_not_depend_on_chunks(run: Convert, treatment: Treatment) -> None:
    short, long = (run(f"{chunk}.flac", chunk=chunk, treatment=treatment) for chunk in (0.7, 60.0))
    assert short.scores == long.scores
    np.testing.assert_allclose(*(soundfile.read(item.output)[0] for item in (short, long)), atol=2**-14)
    silent = [soundfile.read(item.output)[0] == 0 for item in (short, long)]
    assert silent[0][5 * RATE : 7 * RATE].all()
    assert (silent[0] == silent[1]).mean() > 0.999


def test_parts_have_the_bytes_and_scores_of_one_process(
    run: Convert, card: ModelCard, tiny_model: Any, recording: Path, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "_PART_SECONDS", 2.0)
    treatment = Treatment(only_above=0.3)
    whole = run("whole.flac", chunk=0.7, treatment=treatment)
    converter = Converter(tiny_model.offline, card)
    plan = plan_conversion(
        card, [str(recording)], str(recording.parents[1] / "parts.flac"), ConversionParameters(treatment=treatment)
    )
    parts = Parts(any_store, plan, plan.tasks[0], 0.7)

    def play(key: str, part: Any, noises: Any) -> Callable[[], Played]:
        def result() -> Played:
            played = converter.play_part(part, noises)
            write_part(any_store, key, played)
            return played

        return result

    for name in ("played.flac", "read.flac"):  # the second time from the store
        there = PartsConverter(card, any_store, parts, play, ahead=3)
        item = run(name, chunk=0.7, converter=there, treatment=treatment)
        assert item.scores == whole.scores
        a, b = (soundfile.read(each.output)[0] for each in (item, whole))
        np.testing.assert_array_equal(a, b)
    assert len(parts.found()) == 9


def test_a_card_with_a_reference_changes_no_sample(run: Convert, card: ModelCard, tiny_model: Any) -> None:
    without = Converter(tiny_model.offline, card.model_copy(update={"familiarity": None}))
    plain, scored = run("plain.flac", converter=without), run("scored.flac")
    np.testing.assert_array_equal(*(soundfile.read(item.output)[0] for item in (plain, scored)))
    assert (plain.familiarity, plain.scores, plain.out_of_depth_seconds) == (None, "", 0)


def test_a_model_without_a_reference_is_refused_before_any_work(card: ModelCard, recording: Path, tmp_path: Path) -> None:
    old = card.model_copy(update={"familiarity": None})
    parameters = ConversionParameters(treatment=Treatment(only_above=0.5))
    with pytest.raises(ConversionError, match="how familiar") as error:
        plan_conversion(old, [str(recording)], str(tmp_path / "out"), parameters)
    assert "--only-above" in error.value.fix
    with pytest.raises(ConversionError, match="between 0 and 1"):
        Treatment(only_above=1.5).check()


def test_the_table_has_the_scores(run: Convert, card: ModelCard, recording: Path, local_store: Store, tmp_path: Path) -> None:
    item = run("out.flac")
    plan = plan_conversion(card, [str(recording)], str(tmp_path / "out.flac"), ConversionParameters(format="flac"))
    write_table(local_store, replace(plan))
    (row,) = read_table(local_store, plan.id)
    assert (row.scores, row.familiarity) == (item.scores, item.familiarity)
