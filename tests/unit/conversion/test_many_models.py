"""Several models in one pass: each result as if its model were the only one, every source decoded once, failures apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rave_dist.conversion import file as file_module
from rave_dist.conversion import in_process, inspection
from rave_dist.conversion import job as job_module
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion, plan_conversions
from rave_dist.conversion.job import Job, begin, finish, in_groups
from rave_dist.errors import ConversionError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard, Treatment
from rave_dist.storage.store import Store

Scripted = Callable[..., tuple[Path, ModelCard]]
RATES = {"frames": 16000, "mirror": 44100, "quiet": 22050}


@pytest.fixture
def cards(scripted: Scripted, local_store: Store) -> list[ModelCard]:
    """Three models of different sample rates."""
    found = []
    for kind, rate in RATES.items():
        path, card = scripted(kind, sample_rate=rate)
        local_store.upload(path, card.files["offline"].key)
        local_store.write_json(f"{card.key}/card.json", card.to_json())
        found.append(card)
    return found


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    for index, (rate, channels, seconds) in enumerate([(16000, 1, 3.0), (44100, 2, 1.3), (8000, 1, 0.01), (48000, 1, 2.0)]):
        samples = rng.standard_normal((int(rate * seconds), channels)) * 0.1
        soundfile.write(folder / "deep" / f"{index}.wav", samples, rate)
    (folder / "notes.wav").write_text("not a sound")
    return folder


def convert(store: Store, cards: list[ModelCard], given: Path, output: Path) -> tuple[ConversionRecord, ...]:
    job = begin(
        store, plan_conversions(cards, [str(given)], str(output), ConversionParameters(format="flac")), chunk_seconds=0.5
    )
    return finish(job, in_process.convert_all(job))


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def test_each_model_s_results_are_those_of_the_model_alone(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    before = hashes(recordings)
    records = convert(local_store, cards, recordings, tmp_path / "all")
    assert hashes(recordings) == before
    assert [record.model for record in records] == [card.reference for card in cards]
    assert [(record.converted, len(record.failed)) for record in records] == [(4, 1)] * 3
    for card in cards:
        plan = plan_conversion(
            card, [str(recordings)], str(tmp_path / "alone" / card.name), ConversionParameters(format="flac")
        )
        job = begin(local_store, [plan], chunk_seconds=0.5)
        finish(job, in_process.convert_all(job))
    assert hashes(tmp_path / "all") == hashes(tmp_path / "alone")
    assert len(hashes(tmp_path / "all")) == 12


def test_each_model_s_treated_results_are_those_of_the_model_alone(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    treatment = Treatment(denoise=0.9, gate=6.0, mix=0.7, match_loudness="file")
    parameters = ConversionParameters(format="flac", treatment=treatment)
    for folder, groups in {"all": [cards], "alone": [[card] for card in cards]}.items():
        for group in groups:
            plans = plan_conversions(group, [str(recordings)], str(tmp_path / folder), parameters, apart=True)
            job = begin(local_store, plans, chunk_seconds=0.5)
            assert {record.converted for record in finish(job, in_process.convert_all(job))} == {4}
    assert hashes(tmp_path / "all") == hashes(tmp_path / "alone")


def test_a_conversion_with_one_model_and_one_with_all_continue_each_other(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    plan = plan_conversion(
        cards[0], [str(recordings)], str(tmp_path / "out" / cards[0].name), ConversionParameters(format="flac")
    )
    job = begin(local_store, [plan], chunk_seconds=0.5)
    finish(job, in_process.convert_all(job))
    (tmp_path / "out" / cards[0].name / "deep" / "1.flac").unlink()
    records = convert(local_store, cards, recordings, tmp_path / "out")
    assert [(record.converted, record.skipped) for record in records] == [(1, 3), (4, 0), (4, 0)]
    assert [(record.converted, record.skipped) for record in convert(local_store, cards, recordings, tmp_path / "out")] == [
        (0, 4)
    ] * 3


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each recording is opened for decoding."""
    count: Counter[str] = Counter()
    for module in (file_module, inspection):
        real = module.open_audio

        @contextmanager
        def counted(path: Path, real: Any = real) -> Iterator[Any]:
            count[Path(path).name] += 1
            with real(path) as decoder:
                yield decoder

        monkeypatch.setattr(module, "open_audio", counted)
    return count


def test_a_source_is_decoded_as_often_for_many_models_as_for_one(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path, opened: Counter[str]
) -> None:
    convert(local_store, cards[:1], recordings, tmp_path / "one")
    alone = Counter(opened)
    assert alone["1.wav"] == 2, "to find damage before anything is written, and to convert"
    opened.clear()
    convert(local_store, cards, recordings, tmp_path / "all")
    assert opened == alone


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models in the order in which they are loaded."""
    names: list[str] = []
    real = Converter.load

    def load(store: Store, card: ModelCard, **options: Any) -> Converter:
        names.append(card.name)
        return real(store, card, **options)

    monkeypatch.setattr(job_module.Converter, "load", load)
    return names


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_model_is_loaded_once_however_many_fit_in_memory(
    local_store: Store,
    cards: list[ModelCard],
    recordings: Path,
    tmp_path: Path,
    loaded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    groups: int,
) -> None:
    sizes = [2 * card.files["offline"].bytes for card in cards]
    memory = {1: sum(sizes), 2: sum(sizes[:2]), 3: 1}[groups]
    monkeypatch.setattr(in_process, "in_groups", lambda job, _: in_groups(job, memory))
    job = begin(
        local_store,
        plan_conversions(cards, [str(recordings)], str(tmp_path / "out"), ConversionParameters(format="flac")),
        chunk_seconds=0.5,
    )
    assert len(list(in_groups(job, memory))) == groups
    records = finish(job, in_process.convert_all(job))
    assert [record.converted for record in records] == [4, 4, 4]
    assert sorted(loaded) == sorted(RATES)


def test_a_model_larger_than_memory_is_alone(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    plans = plan_conversions(cards, [str(recordings)], str(tmp_path / "out"), ConversionParameters(format="flac"))
    groups = list(in_groups(begin(local_store, plans, chunk_seconds=0.5), 0))
    assert [group.models for group in groups] == [(0,), (1,), (2,)]
    assert all(work.plans == group.models for group in groups for work in group.to_do)


def test_a_model_that_fails_on_a_source_fails_alone(
    scripted: Scripted, local_store: Store, cards: list[ModelCard], tmp_path: Path
) -> None:
    """One answers with infinity, which is foreseen, and one raises, which is not."""
    found = cards[:2]
    for kind in ("broken", "fussy"):
        path, card = scripted(kind)
        local_store.upload(path, card.files["offline"].key)
        found.append(card)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "loud.wav", np.full(16000, 0.95), 16000)
    soundfile.write(tmp_path / "in" / "soft.wav", np.full(16000, 0.05), 16000)
    plans = plan_conversions(found, [str(tmp_path / "in")], str(tmp_path / "out"), ConversionParameters(format="flac"))
    job: Job = begin(local_store, plans, chunk_seconds=0.5, trust=True)
    records = {record.model.partition("@")[0]: record for record in finish(job, in_process.convert_all(job))}
    assert {name: record.converted for name, record in records.items()} == {"frames": 2, "mirror": 2, "broken": 1, "fussy": 1}
    reasons = {name: record.failed[0].reason or "" for name, record in records.items() if record.failed}
    assert "NaN or infinite" in reasons["broken"]
    assert "too loud" in reasons["fussy"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.flac")) == ["loud.flac"] * 2 + ["soft.flac"] * 4


def test_one_output_that_cannot_be_written_fails_alone(
    local_store: Store, cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "mirror" / "deep" / "0.flac").mkdir(parents=True)
    records = {r.model.partition("@")[0]: r for r in convert(local_store, cards, recordings, tmp_path / "out")}
    assert {name: (r.converted, len(r.failed)) for name, r in records.items()} == {
        "frames": (4, 1),
        "mirror": (3, 2),
        "quiet": (4, 1),
    }
    assert any("a folder has this name" in (failed.reason or "") for failed in records["mirror"].failed)


def test_folders_are_named_by_models_and_by_versions_where_names_are_equal(
    cards: list[ModelCard], recordings: Path, tmp_path: Path
) -> None:
    later = cards[0].model_copy(update={"version": "2"})
    capital = cards[1].model_copy(update={"name": "Mirror"})
    plans = plan_conversions(
        [*cards, later, capital, later], [str(recordings)], str(tmp_path / "out"), ConversionParameters(format="flac")
    )
    folders = [plan.output.uri.removeprefix(f"{tmp_path / 'out'}/") for plan in plans]
    assert folders == ["frames@1", "mirror@1", "quiet", "frames@2", "Mirror@1"]


def test_several_models_need_a_folder(cards: list[ModelCard], recordings: Path, tmp_path: Path) -> None:
    one = str(recordings / "deep" / "0.wav")
    with pytest.raises(ConversionError, match="one file, but there are 3 models"):
        plan_conversions(cards, [one], str(tmp_path / "x.flac"), ConversionParameters(format="flac"))
    with pytest.raises(ConversionError, match="no models") as caught:
        plan_conversions([], [one], str(tmp_path / "out"), ConversionParameters(format="flac"))
    assert caught.value.fix
    with pytest.raises(ConversionError, match="inside the input"):
        plan_conversions(cards, [str(recordings)], str(recordings / "out"), ConversionParameters(format="flac"))
