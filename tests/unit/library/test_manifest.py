"""A manifest is taken as it was meant or refused with the place and the smallest fix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rave_dist.errors import LibraryError
from rave_dist.extensions import EXPORT_FORMATS, LOSSES, METRICS, ExportFormat, Loss, Metric
from rave_dist.library.keys import Key, all_keys, known_keys
from rave_dist.library.manifest import Library, load_library
from rave_dist.library.schema import AUGMENTATIONS, Instrument
from rave_dist.options import Budget
from rave_dist.rave.step_config import StepConfig
from rave_dist.storage.store import Store

Write = Callable[[str], Path]

WHOLE = """
name: malay-percussion
store: ./store
defaults: {config: v2_small, sample_rate: 48000, channels: 2, budget: {hours: 4}, override: {CAPACITY: 64, N_BAND: 16},
           credit: {licence: CC0-1.0, place: Melaka}}
instruments:
  rebana:
    sources: ["recordings/rebana/**/*.wav", /elsewhere/b.flac, "s3://bucket/rebana"]
    credit: {performer: someone, place: Kuala Kangsar}
  kompang: {sources: recordings/kompang, config: [v2, causal], budget: {steps: 200000}, override: {CAPACITY: 48}, seed: 5,
            window: 131072, batch: 4, checkpoint: {minutes: 1}}
"""

SMALL = """
name: drums
store: store
instruments:
  tabla: {sources: recordings}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "library.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path) -> LibraryError:
    with pytest.raises(LibraryError) as caught:
        load_library(path)
    assert caught.value.fix
    assert str(path) in caught.value.where
    return caught.value


# ---------------------------------------------------------------- what is meant


def test_a_whole_manifest(write: Write, tmp_path: Path) -> None:
    library = load_library(write(WHOLE))
    assert library.name == "malay-percussion"
    assert library.instruments == ("rebana", "kompang")
    assert library.store == Store(str(tmp_path / "store"))


def test_paths_are_relative_to_the_manifest(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(WHOLE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for named in (path, Path(os.path.relpath(path)), str(path)):
        library = load_library(named)
        assert library.sources("rebana") == (
            str(tmp_path / "recordings/rebana/**/*.wav"),
            "/elsewhere/b.flac",
            "s3://bucket/rebana",
        )
        assert library.sources("kompang") == (str(tmp_path / "recordings/kompang"),)


def test_home_is_expanded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    library = load_library(write(SMALL.replace("store: store", "store: ~/store").replace("recordings", "~/recordings")))
    assert library.store.uri == "/home/someone/store"
    assert library.sources("tabla") == ("/home/someone/recordings",)


def test_a_store_on_s3(write: Write) -> None:
    assert load_library(write(SMALL.replace("store: store", "store: s3://b/p"))).store == Store("s3://b/p")


def test_the_instruments_word_wins_over_the_librarys_over_the_houses(write: Write) -> None:
    library = load_library(write(WHOLE))
    kompang, rebana = library.settings("kompang"), library.settings("rebana")
    assert (kompang.config, rebana.config) == (("v2", "causal"), ("v2_small",))
    assert (kompang.sample_rate, kompang.channels) == (48000, 2)
    assert kompang.budget is not None
    assert (kompang.budget.steps, kompang.budget.hours) == (200000, None)
    assert rebana.budget is not None
    assert (rebana.budget.steps, rebana.budget.hours) == (None, 4)
    assert (kompang.window, kompang.batch, rebana.window, rebana.batch) == (131072, 4, None, None)
    small = load_library(write(SMALL)).settings("tabla")
    assert (small.config, small.sample_rate, small.channels, small.override) == (("v2_small",), 44100, 1, {})
    assert small.budget is not None
    assert small.budget.hours == 4


def test_overrides_and_credits_merge_key_by_key(write: Write) -> None:
    library = load_library(write(WHOLE))
    assert library.settings("kompang").override == {"CAPACITY": 48, "N_BAND": 16}
    assert library.settings("rebana").override == {"CAPACITY": 64, "N_BAND": 16}
    assert library.settings("rebana").credit == {"licence": "CC0-1.0", "place": "Kuala Kangsar", "performer": "someone"}
    assert library.settings("kompang").credit == {"licence": "CC0-1.0", "place": "Melaka"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("low-data", AUGMENTATIONS),
        ("gain", {"gain": 0.5}),
        ("[gain, mangle]", {"mangle": 0.8, "gain": 0.5}),
        ("{mute: 0.3}", {"mute": 0.3}),
        ("[]", {}),
    ],
)
def test_augmentations_are_a_set_or_names_or_probabilities(write: Write, written: str, meant: dict[str, float]) -> None:
    library = load_library(write(WHOLE.replace("batch: 4", f"batch: 4, augment: {written}")))
    assert library.training_spec("kompang", dataset="x").augment == meant
    assert library.training_spec("rebana", dataset="x").augment == {"mangle": 0.8}


@pytest.mark.parametrize("written", ["gian", "[mangle, gian]", "{gian: 0.5}"])
def test_an_unknown_augmentation_is_answered_with_the_nearest(write: Write, written: str) -> None:
    error = refusal(write(WHOLE.replace("batch: 4", f"batch: 4, augment: {written}")))
    assert "'instruments.kompang.augment'" in error.what
    assert "no augmentation 'gian'" in error.what
    assert "'gain'" in error.fix


@pytest.mark.parametrize(
    ("written", "meant"),
    [("bf16", ("bf16",)), ("[fused-adam, tf32, tf32]", ("tf32", "fused-adam")), ("[]", ())],
)
def test_compute_options_are_one_or_several(write: Write, written: str, meant: tuple[str, ...]) -> None:
    library = load_library(write(WHOLE.replace("batch: 4", f"batch: 4, compute: {written}")))
    assert library.training_spec("kompang", dataset="x").compute == meant
    assert library.training_spec("rebana", dataset="x").compute == ()


def test_a_batch_is_a_number_or_auto(write: Write) -> None:
    library = load_library(write(WHOLE.replace("batch: 4", "batch: auto")))
    asked = library.training_spec("kompang", dataset="x")
    assert asked.batch == "auto"
    step = StepConfig.of(asked)
    assert (step.window, step.batch) == (131072, 8)
    plain = load_library(write(WHOLE)).training_spec("kompang", dataset="x")
    assert asked.run_id != plain.run_id == plain.model_copy(update={"batch": 4}).run_id
    error = refusal(write(WHOLE.replace("batch: 4", "batch: automatic")))
    assert error.what == "'instruments.kompang.batch' is 'automatic': a batch is a number of windows from 1 to 4096, or auto"


def test_seeds_are_written_or_come_from_the_name(write: Write) -> None:
    library = load_library(write(WHOLE))
    assert library.seed("kompang") == 5
    assert library.seed("rebana") == load_library(write(WHOLE)).seed("rebana")
    assert 0 <= library.seed("rebana") < 2**31


def test_a_spec_is_all_that_the_run_needs(write: Write) -> None:
    library = load_library(write(WHOLE))
    spec = library.training_spec("kompang", dataset="0123456789ab")
    assert (spec.library, spec.instrument, spec.dataset) == ("malay-percussion", "kompang", "0123456789ab")
    assert (spec.config, spec.override, spec.seed) == (("v2", "causal"), {"CAPACITY": 48, "N_BAND": 16}, 5)
    assert spec.checkpoint.every_seconds == 60
    assert spec == library.training_spec("kompang", dataset="0123456789ab")


def test_a_spec_does_not_depend_on_where_the_manifest_lies(write: Write, tmp_path: Path) -> None:
    moved = tmp_path / "deeper" / "other.yaml"
    moved.parent.mkdir()
    moved.write_text(WHOLE)
    here, there = load_library(write(WHOLE)), load_library(moved)
    assert here.training_spec("rebana", dataset="x").run_id == there.training_spec("rebana", dataset="x").run_id


def test_some_instruments_can_be_selected(write: Write) -> None:
    library = load_library(write(WHOLE))
    assert library.select(None) == library.select([]) == ("rebana", "kompang")
    assert library.select(["kompang"]) == ("kompang",)
    with pytest.raises(LibraryError, match="no instrument is called 'kompank'") as caught:
        library.select(["kompank"])
    assert "kompang" in caught.value.fix


def test_loading_touches_nothing(write: Write, tmp_path: Path) -> None:
    load_library(write(WHOLE))
    assert [p.name for p in tmp_path.iterdir()] == ["library.yaml"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("right", "wrong", "place", "nearest"),
    [
        ("store: ./store", "stroe: ./store", "stroe", "store"),
        ("instruments:", "instrument:", "instrument", "instruments"),
        ("sample_rate: 48000", "samplerate: 48000", "defaults.samplerate", "sample_rate"),
        ("config: [v2", "configs: [v2", "instruments.kompang.configs", "config"),
        ('sources: ["rec', 'source: ["rec', "instruments.rebana.source", "sources"),
        ("{hours: 4}", "{hour: 4}", "defaults.budget.hour", "hours"),
        ("{steps: 200000}", "{step: 200000}", "instruments.kompang.budget.step", "steps"),
        ("{minutes: 1}", "{minute: 1}", "instruments.kompang.checkpoint.minute", "minutes"),
        ("{steps: 200000}", "{until: {patience: 3, improve: 0.1}}", "instruments.kompang.budget.until.improve", "improvement"),
        ("{minutes: 1}", "{}, recover: {rates: 0.5}", "instruments.kompang.recover.rates", "rate"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest(write: Write, right: str, wrong: str, place: str, nearest: str) -> None:
    assert right in WHOLE
    error = refusal(write(WHOLE.replace(right, wrong)))
    assert f"unknown key '{place}'" in error.what
    assert f"did you mean '{nearest}'?" in error.fix


def test_a_key_near_nothing_is_answered_with_what_is_known(write: Write) -> None:
    error = refusal(write(SMALL + "zzz: 1\n"))
    assert "unknown key 'zzz'" in error.what
    for key in ("name", "store", "max_concurrent", "price", "on_end", "defaults", "instruments"):
        assert key in error.fix


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ("sample_rate: 48000", "sample_rate: fast", "defaults.sample_rate"),
        ("sample_rate: 48000", "sample_rate: '48000'", "defaults.sample_rate"),
        ("sample_rate: 48000", "sample_rate: 48000.5", "defaults.sample_rate"),
        ("sample_rate: 48000", "sample_rate: true", "defaults.sample_rate"),
        ("sample_rate: 48000", "sample_rate: 44", "defaults.sample_rate"),
        ("channels: 2", "channels: 0", "defaults.channels"),
        ("channels: 2", "channels: stereo", "defaults.channels"),
        ("{hours: 4}", "{hours: soon}", "defaults.budget.hours"),
        ("{hours: 4}", "{hours: -1}", "defaults.budget.hours"),
        ("{hours: 4}", "{hours: .nan}", "defaults.budget.hours"),
        ("{hours: 4}", "{}", "defaults.budget"),
        ("{hours: 4}", "4", "defaults.budget"),
        ("batch: 4", "batch: 0", "instruments.kompang.batch"),
        ("batch: 4", "batch: true", "instruments.kompang.batch"),
        ("window: 131072", "window: long", "instruments.kompang.window"),
        ("batch: 4", "augment: {gain: 2}", "instruments.kompang.augment.gain"),
        ("batch: 4", "augment: {gain: often}", "instruments.kompang.augment.gain"),
        ("batch: 4", "augment: 5", "instruments.kompang.augment"),
        ("seed: 5", "seed: -5", "instruments.kompang.seed"),
        ("sources: recordings/kompang", "sources: []", "instruments.kompang.sources"),
        ("sources: recordings/kompang", "sources: [1]", "instruments.kompang.sources.0"),
        ("sources: recordings/kompang", "sources: ''", "instruments.kompang.sources"),
        ("config: [v2, causal]", "config: []", "instruments.kompang.config"),
        ("override: {CAPACITY: 48}", "override: [CAPACITY]", "instruments.kompang.override"),
        ("name: malay-percussion", "name: ../x", "name"),
        ("name: malay-percussion", "name: ''", "name"),
        ("name: malay-percussion", "name: 5", "name"),
        ("store: ./store", "store: ''", "store"),
        ("store: ./store", "store: [a]", "store"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_place(write: Write, right: str, wrong: str, place: str) -> None:
    assert right in WHOLE
    error = refusal(write(WHOLE.replace(right, wrong)))
    assert f"'{place}" in error.what
    assert f"'{place}" in error.fix or error.fix.startswith(("put it in quotes: ", "write "))


@pytest.mark.parametrize(
    ("wrong", "what", "fix"),
    [
        ("budget: {hours: yes}", "is yes: must be a number", "for example hours: 4"),
        ("budget: {until: {patience: yes}}", "must be a number", "for example patience: 10"),
        ("budget: {steps: 1.5}", "must be a whole number", "for example steps: 200000"),
        ("budget: 4", "must be keys with values", "for example budget: {hours: 4}"),
        ("budget: {until: {patience: -2}}", "must be 1 or more", "for example patience: 10"),
        ("checkpoint: {minutes: 0}", "must be more than 0", "for example minutes: 10"),
        ("checkpoint: {keep: yes}", "must be a number", "for example keep: 2"),
        ("base: {train: maybe}", "must be true or false", "for example train: true"),
        ("base: {train: true}", "tabla requests a joint base", "write it in defaults"),
        ("augment: {pitch: yes}", "must be a number", "for example augment: low-data"),
        ("augment: high-data", "no augmentation 'high-data'", "low-data"),
        ("augment: [low-data, pitch]", "no augmentation 'low-data'", "low-data"),
        ("compute: {tf32: true}", "'instruments.tabla.compute': must be one name or a list", "for example compute: [bf16"),
        ("compute: fp61", "'instruments.tabla.compute' is 'fp61': there is no compute option 'fp61'", "fp16"),
        ("compute: [bf16, fp16]", "'instruments.tabla.compute' is [bf16, fp16]: bf16 and fp16 cannot", "leave out"),
        ("channels: 6", "must be 2 or less", "for example channels: 1"),
        ("recover: yes", "must be keys with values", "for example recover: {rate: 0.5}"),
        ("override: {4: 4}", "must be a string", 'put it in quotes: "4"'),
        ("credit: {performer: 5}", "must be a string", 'put it in quotes: "5"'),
    ],
)
def test_a_refusal_says_in_plain_words_what_is_needed_and_shows_it(write: Write, wrong: str, what: str, fix: str) -> None:
    error = refusal(write(SMALL.replace("sources: recordings", f"sources: recordings, {wrong}")))
    assert what in error.what
    assert fix in error.fix
    assert "Input should" not in error.what


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extensions that examples of keys name."""
    monkeypatch.setitem(LOSSES._entries, "level", Loss(weight=1.0, compute=lambda x, y, sample_rate: (x - y).abs().mean()))
    monkeypatch.setitem(EXPORT_FORMATS._entries, "arrays", ExportFormat(suffix=".npz", write=lambda offline, target: None))
    monkeypatch.setitem(METRICS._entries, "crest", Metric(label="Crest factor (dB)", measure=lambda x, y, sample_rate: None))


@pytest.mark.parametrize("key", list(all_keys()), ids=lambda key: ".".join(key.path))
def test_every_key_is_described_and_its_examples_are_accepted(write: Write, key: Key, extensions: None) -> None:
    assert key.description
    assert not key.description.endswith(".")
    assert key.examples
    for shown in key.examples:
        load_library(write(_with(key.path, shown)))


def _with(path: tuple[str, ...], shown: str) -> str:
    """A manifest in which an example stands at its place, with what it requires."""
    if path[0] in ("name", "store", "max_concurrent", "price", "on_end", "defaults", "instruments"):
        others = {"name": "name: drums", "store": "store: store", "instruments": "instruments: {tabla: {sources: recordings}}"}
        return "\n".join([shown, *(line for name, line in others.items() if name != path[0])])
    needs = {"resume": "stock: x, ", "ema": "stock: x, ", "freeze_encoder": "model: kompang, ", "improvement": "patience: 1, "}
    if path == ("base", "budget"):
        needs["budget"] = "train: true, "
    written = needs.get(path[-1], "") + shown
    for outer in reversed(path[:-1]):
        written = f"{outer}: {{{written}}}"
    if path == ("sources",):
        return SMALL.replace("sources: recordings", written)
    if "train: true" in written:
        return SMALL + f"defaults: {{{written}}}\n"
    return SMALL.replace("sources: recordings", f"sources: recordings, {written}")


def test_keys_are_known_where_they_may_be_written() -> None:
    assert known_keys(("x",)) == ("name", "store", "max_concurrent", "price", "on_end", "defaults", "instruments")
    assert known_keys(("instruments", "config", "x")) == tuple(Instrument.model_fields), "an instrument may be called config"
    assert known_keys(("defaults", "budget", "until", "x")) == ("patience", "improvement")


@pytest.mark.parametrize(("written", "steps"), [("1e6", 1_000_000), ("2E5", 200_000), ("1.5e+6", 1_500_000), ("300", 300)])
def test_large_numbers_may_be_written_with_an_exponent(write: Write, written: str, steps: int) -> None:
    library = load_library(write(SMALL.replace("sources: recordings", f"sources: recordings, budget: {{steps: {written}}}")))
    assert library.settings("tabla").budget == Budget(steps=steps)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a b", "x" * 64, "a\nb"])
def test_names_that_make_no_folder_are_refused(write: Write, name: str) -> None:
    error = refusal(write(SMALL.replace("tabla:", f"{name!r}:" if "\n" not in name else '"a\\nb":')))
    assert "instruments" in error.what


def test_names_that_differ_in_case_alone_are_refused(write: Write) -> None:
    error = refusal(write(SMALL + "  Tabla: {sources: more}\n"))
    assert "Tabla" in error.what
    assert "tabla" in error.what


def test_missing_keys_are_named(write: Write) -> None:
    error = refusal(write("defaults: {}\n"))
    for key in ("name", "store", "instruments"):
        assert f"'{key}' is missing" in error.what
        assert f"add '{key}'" in error.fix
    assert "'instruments.tabla.sources' is missing" in refusal(write(SMALL.replace("sources: recordings", ""))).what
    assert "instruments" in refusal(write("name: a\nstore: b\ninstruments: {}\n")).what


def test_a_key_written_twice_is_refused_with_its_line(write: Write) -> None:
    error = refusal(write(SMALL + "  tabla: {sources: other}\n"))
    assert "'tabla' is written twice" in error.what
    assert error.where.endswith("line 6")


def test_keys_that_are_no_text_are_refused(write: Write) -> None:
    error = refusal(write(SMALL + "  808: {sources: other}\n"))
    assert "808" in error.what


@pytest.mark.parametrize("text", ["a: [", "\tname: x", "- a\n- b", "just words", "", "name: !!python/object:os.system x"])
def test_what_is_no_mapping_is_refused(write: Write, text: str) -> None:
    refusal(write(text))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.yaml").what
    assert "folder" in refusal(tmp_path).what
    (tmp_path / "sound.yaml").write_bytes(b"RIFF\xff\xfe\x00")
    assert "UTF-8" in refusal(tmp_path / "sound.yaml").what
    (tmp_path / "control.yaml").write_bytes(b"name: a\x00b")
    refusal(tmp_path / "control.yaml")


def test_a_store_that_is_no_store_is_refused_at_load(write: Write) -> None:
    path = write(SMALL.replace("store: store", "store: gs://bucket/x"))
    with pytest.raises(Exception, match="gs://") as caught:
        load_library(path)
    assert "s3://bucket" in str(caught.value)


def test_a_library_travels_as_what_it_was_made_of(write: Write) -> None:
    library = load_library(write(WHOLE))
    twin = Library(library.manifest, path=library.path)
    assert twin.training_spec("rebana", dataset="x") == library.training_spec("rebana", dataset="x")


def test_a_dict_is_a_manifest_too(write: Write, tmp_path: Path) -> None:
    path = write(WHOLE)
    library = load_library(path)
    twin = Library.from_dict(yaml.safe_load(path.read_text()), folder=path.parent)
    assert twin.instruments == library.instruments
    for name in library.instruments:
        assert twin.training_spec(name, dataset="x") == library.training_spec(name, dataset="x")
        assert twin.sources(name) == library.sources(name)
    with pytest.raises(LibraryError, match="instrumnets") as caught:
        Library.from_dict({"name": "a", "store": "s", "instrumnets": {}}, folder=tmp_path)
    assert caught.value.where == "the manifest"
    assert "instruments" in caught.value.fix
