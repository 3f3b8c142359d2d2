"""What becomes what, what is refused before any work, and what a rerun does again."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.conversion.corpus import Plan, finished, output_tag, plan_conversion
from rave_dist.conversion.job import begin, finish
from rave_dist.errors import AudioError, ConversionError
from rave_dist.records import ConversionItem, ConversionParameters, ModelCard
from rave_dist.storage.store import Store

PARAMETERS = ConversionParameters(format="flac")


@pytest.fixture
def card(scripted: Callable[..., tuple[Path, ModelCard]]) -> ModelCard:
    return scripted("mirror")[1]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Small WAV files (whatever their extension) below a folder."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.full(100, 0.1), 8000, format="WAV")
        return tmp_path

    return write


def outputs(plan: Plan) -> dict[str, str]:
    return {Path(task.source.uri).name: task.output for task in plan.tasks}


def test_one_folder_keeps_its_tree(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/2019 Ende März/ü b.aiff", "in/x/y/z.mp3")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS)
    assert sorted(t.output for t in plan.tasks) == ["2019 Ende März/ü b.flac", "a.flac", "x/y/z.flac"]
    assert plan.output.uri == str(root / "out")


def test_several_folders_keep_the_tree_below_what_holds_them_all(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("card 1/REC001.wav", "card 2/REC001.wav", "more/deep/REC001.wav")
    plan = plan_conversion(card, [str(root / n) for n in ("card 1", "card 2", "more/deep")], str(root / "out"), PARAMETERS)
    assert sorted(t.output for t in plan.tasks) == ["card 1/REC001.flac", "card 2/REC001.flac", "more/deep/REC001.flac"]


def test_names_that_would_meet_keep_their_extension(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/a.mp3", "in/A.aiff", "in/b.wav", "in/take.1.wav")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS.model_copy(update={"format": "wav"}))
    assert outputs(plan) == {
        "a.wav": "a.wav.wav",
        "a.mp3": "a.mp3.wav",
        "A.aiff": "A.aiff.wav",
        "b.wav": "b.wav",
        "take.1.wav": "take.1.wav",
    }


def test_wav_stays_wav_and_all_else_becomes_flac(card: ModelCard, make: Callable[..., Path]) -> None:
    """A file in FLAC's name may become a WAV file, so it does not have that name where there is one."""
    root = make("in/a.WAV", "in/b.w64", "in/c.flac", "in/d.mp3", "in/take.wav", "in/take.ogg", "in/e.rf64", "in/f.aiff")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), ConversionParameters())
    assert outputs(plan) == {
        "a.WAV": "a.wav",
        "b.w64": "b.wav",
        "c.flac": "c.flac",
        "d.mp3": "d.flac",
        "take.wav": "take.wav",
        "take.ogg": "take.ogg.flac",
        "e.rf64": "e.wav",
        "f.aiff": "f.flac",
    }


def test_no_two_outputs_are_one_file_even_where_case_does_not_count(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/A.wav", "in/a.mp3", "in/a.wav.mp3", "in/é.wav", "in/e\u0301.wav")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS)
    assert len({t.output.casefold() for t in plan.tasks}) == 6
    again = plan_conversion(card, [str(root / "in" / "*")], str(root / "out"), PARAMETERS)
    assert outputs(again) == outputs(plan)


def test_what_is_passed_over_is_in_the_plan_and_in_the_record(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/sub/TAKE.RM", "in/sub/cover.jpg", "in/.DS_Store")
    (root / "in" / "annex.flac").symlink_to(".git/annex/objects/none")
    os.mkfifo(root / "in" / "pipe.wav")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS)
    assert outputs(plan) == {"a.wav": "a.flac", "TAKE.RM": "sub/TAKE.flac"}
    (record,) = finish(begin(Store(str(root / "store")), [plan], chunk_seconds=5.0), ())
    assert {(entry.reason, entry.extension): entry.count for entry in record.passed_over} == {
        ("a link to a missing file", ".flac"): 1,
        ("a FIFO, socket or device", ".wav"): 1,
        ("not an audio extension", ".jpg"): 1,
        ("hidden", ""): 1,
    }
    assert record.to_json()["passed_over"] == [entry.to_json() for entry in plan.passed_over]


def test_a_single_source_may_have_a_file_as_output(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/b.wav")
    plan = plan_conversion(card, [str(root / "in/a.wav")], str(root / "out/result.wav"), PARAMETERS)
    assert (plan.output.uri, plan.tasks[0].output, plan.parameters.format) == (str(root / "out"), "result.wav", "wav")
    with pytest.raises(ConversionError, match="2 inputs"):
        plan_conversion(card, [str(root / "in")], str(root / "out/result.wav"), PARAMETERS)
    with pytest.raises(ConversionError, match=r"cannot write \.mp3"):
        plan_conversion(card, [str(root / "in/a.wav")], str(root / "out/result.mp3"), PARAMETERS)


@pytest.mark.parametrize("given", ["in", "in/**/*.wav"])
@pytest.mark.parametrize("output", ["in", "in/out", "in/sub/../out", "link", "link/out"])
def test_output_in_an_input_is_refused(card: ModelCard, make: Callable[..., Path], given: str, output: str) -> None:
    root = make("in/sub/a.wav")
    (root / "link").symlink_to(root / "in")
    with pytest.raises(ConversionError, match="is inside"):
        plan_conversion(card, [str(root / given)], str(root / output), PARAMETERS)
    assert sorted(p.name for p in (root / "in").rglob("*")) == ["a.wav", "sub"]


def test_relative_paths_are_refused_alike(card: ModelCard, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = make("in/a.wav")
    monkeypatch.chdir(root / "in")
    for given, output in ((".", "out"), (str(root / "in"), "."), ("../in", "x/../out"), ("a.wav", "."), ("a.wav", "a.wav")):
        with pytest.raises(ConversionError):
            plan_conversion(card, [given], output, PARAMETERS)
    assert [t.output for t in plan_conversion(card, ["a.wav"], "../out", PARAMETERS).tasks] == ["a.flac"]
    assert [t.output for t in plan_conversion(card, ["a.wav"], "a.flac", PARAMETERS).tasks] == ["a.flac"]
    assert [t.output for t in plan_conversion(card, ["*.wav"], "out", PARAMETERS).tasks] == ["a.flac"]


def test_a_folder_with_brackets_is_not_a_wildcard(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("[takes] 1/sub/a.wav")
    tasks = plan_conversion(card, [str(root / "[takes] 1/**/*.wav")], str(root / "out"), PARAMETERS).tasks
    assert [task.output for task in tasks] == ["sub/a.flac"]
    with pytest.raises(ConversionError, match="is inside"):
        plan_conversion(card, [str(root / "[takes] 1/**/*.wav")], str(root / "[takes] 1" / "out"), PARAMETERS)


def test_an_input_in_output_is_refused(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("all/in/a.wav", "elsewhere/b.wav")
    (root / "all" / "linked").symlink_to(root / "elsewhere")
    with pytest.raises(ConversionError, match="is inside OUTPUT"):
        plan_conversion(card, [str(root / "all/in")], str(root / "all"), PARAMETERS)
    with pytest.raises(ConversionError, match="is inside"):
        plan_conversion(card, [str(root / "all")], str(root / "elsewhere"), PARAMETERS)
    with pytest.raises(ConversionError, match="is inside"):
        plan_conversion(card, [str(root / "all")], str(root / "elsewhere" / "deeper"), PARAMETERS)
    os.link(root / "all/in/a.wav", root / "same.wav")  # another name of the same bytes: replaced as a name, never opened
    plan_conversion(card, [str(root / "all/in/a.wav")], str(root / "same.wav"), PARAMETERS)


def test_what_cannot_be_meant_is_refused(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "file")
    with pytest.raises(ConversionError, match="nothing to convert"):
        plan_conversion(card, [], str(root / "out"), PARAMETERS)
    with pytest.raises(AudioError, match="no recording"):
        plan_conversion(card, [str(root / "absent")], str(root / "out"), PARAMETERS)
    with pytest.raises(ConversionError, match="OUTPUT is a file"):
        plan_conversion(card, [str(root / "in")], str(root / "file"), PARAMETERS)
    with pytest.raises(AudioError, match="at most 8 channels"):
        plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS.model_copy(update={"channels": 9}))


def test_the_id_is_of_what_decides_the_result(card: ModelCard, make: Callable[..., Path]) -> None:
    root = make("in/a.wav", "in/b.wav")

    def plan_id(given: str = "in", output: str = "out", card: ModelCard = card, **changes: object) -> str:
        return plan_conversion(card, [str(root / given)], str(root / output), PARAMETERS.model_copy(update=changes)).id

    assert plan_id() == plan_id("in/a.wav") == plan_id(salvage=True)
    others = [
        plan_id(output="out2"),
        plan_id(seed=1),
        plan_id(format="wav"),
        plan_id(channels=1),
        plan_id(sample_rate=8000),
        plan_id(card=card.model_copy(update={"version": "2"})),
    ]
    assert len({plan_id(), *others}) == 7


def test_a_damaged_journal_entry_is_no_entry(card: ModelCard, make: Callable[..., Path], any_store: Store) -> None:
    root = make("in/a.wav", "in/b.wav")
    plan = plan_conversion(card, [str(root / "in")], str(root / "out"), PARAMETERS)
    entries = []
    for task in plan.tasks:
        plan.output.write_bytes(task.output, b"result")
        entries.append(
            ConversionItem(
                source=task.source.name,
                source_sha256="0",
                source_fingerprint=task.source.fingerprint,
                output=plan.output.address(task.output),
                output_tag=output_tag(plan, task.output),
                state="converted",
            )
        )
        any_store.write_json(plan.journal_key(task), entries[-1].to_json())
    assert list(finished(any_store, plan)) == entries
    any_store.write_bytes(plan.journal_key(plan.tasks[0]), b'{"source": "a')
    any_store.write_bytes(plan.journal_key(plan.tasks[1]), b'{"source": 1}')
    assert list(finished(any_store, plan)) == [None, None]


def test_a_file_name_that_is_not_utf_8_has_an_output(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(os.fsencode(tmp_path) + b"/in/caf\xe9.wav", np.zeros(10), 8000)
    plan = plan_conversion(card, [str(tmp_path / "in")], str(tmp_path / "out"), PARAMETERS)
    assert [t.output for t in plan.tasks] == ["caf\\xe9.flac"]


def test_output_in_an_input_is_refused_on_s3_too(card: ModelCard, make: Callable[..., Path], s3_store: Store) -> None:
    s3_store.upload(make("a.wav") / "a.wav", "in/a.wav")
    s3_store.upload(make("a.wav") / "a.wav", "in-between/b.wav")
    for given, output in (
        ("in", "in"),
        ("in/", "in/out/"),
        ("in/**/*.wav", "in/out"),
        ("", "out"),
        ("in", ""),
        ("in/a.wav", "in"),
    ):
        with pytest.raises(ConversionError):
            plan_conversion(card, [s3_store.address(given)], s3_store.address(output), PARAMETERS)
    plan = plan_conversion(card, [s3_store.address("in")], s3_store.address("in-between"), PARAMETERS)
    assert [t.output for t in plan.tasks] == ["a.flac"]
    both = plan_conversion(card, [s3_store.address("in"), s3_store.address("in-between")], s3_store.address("out"), PARAMETERS)
    assert [t.output for t in both.tasks] == ["in-between/b.flac", "in/a.flac"]
