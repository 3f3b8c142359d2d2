"""A small corpus in the command's own process: Ray's journal, record and failures, without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rave_dist import archives, cluster
from rave_dist.cli import command
from rave_dist.conversion import in_process
from rave_dist.conversion import job as job_module
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import begin, finish
from rave_dist.conversion.table import read_table
from rave_dist.errors import ConversionError, StoreError
from rave_dist.identity import hash_file
from rave_dist.progress import Silent
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard
from rave_dist.storage.store import Store

Publish = Callable[[str], ModelCard]


@pytest.fixture
def publish(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store) -> Publish:
    def put(kind: str) -> ModelCard:
        path, card = scripted(kind)
        local_store.upload(path, card.files["offline"].key)
        local_store.write_json(f"{card.key}/card.json", card.to_json())
        return card

    return put


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three recordings, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    for index, (rate, channels) in enumerate([(16000, 1), (44100, 2), (8000, 1)]):
        soundfile.write(folder / "deep" / f"{index}.wav", rng.standard_normal((rate, channels)) * 0.1, rate)
    (folder / "notes.wav").write_text("not a sound")
    return folder


class Told(Silent):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.counts: list[tuple[int, int, str]] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
        self.counts.append((done, total, unit))


def convert(store: Store, card: ModelCard, given: Path, output: Path) -> ConversionRecord:
    plan = plan_conversion(card, [str(given)], str(output), ConversionParameters(format="flac"))
    job = begin(store, [plan], chunk_seconds=0.5)
    return finish(job, in_process.convert_all(job))[0]


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def test_good_ones_are_converted_bad_ones_named_and_a_rerun_does_what_is_missing(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path
) -> None:
    card = publish("frames")
    first = convert(local_store, card, recordings, tmp_path / "out")
    assert (first.converted, first.skipped, len(first.failed)) == (3, 0, 1)
    assert local_store.read_json(f"conversions/{first.id}/record.json") == first.to_json()
    made = hashes(tmp_path / "out")
    assert set(made) == {"deep/0.flac", "deep/1.flac", "deep/2.flac"}
    (tmp_path / "out" / "deep" / "1.flac").unlink()
    again = convert(local_store, card, recordings, tmp_path / "out")
    assert (again.id, again.converted, again.skipped, len(again.failed)) == (first.id, 1, 2, 1)
    assert hashes(tmp_path / "out") == made


def test_a_command_that_is_stopped_resumes(local_store: Store, publish: Publish, recordings: Path, tmp_path: Path) -> None:
    card = publish("frames")
    whole = convert(local_store, card, recordings, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    job = begin(
        local_store,
        [plan_conversion(card, [str(recordings)], str(tmp_path / "out"), ConversionParameters(format="flac"))],
        chunk_seconds=0.5,
    )
    with pytest.raises(KeyboardInterrupt):
        finish(job, in_process.convert_all(job), stop)
    assert len(hashes(tmp_path / "out")) == 2
    rest = convert(local_store, card, recordings, tmp_path / "out")
    assert (rest.converted, rest.skipped, len(rest.failed)) == (1, 2, len(whole.failed))
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_what_nobody_foresaw_is_one_file_s_failure(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = publish("frames")
    real = job_module.convert_source

    def fussy(store: Store, task: Any, *rest: Any, **options: Any) -> Any:
        if task.output.endswith("1.flac"):
            raise ZeroDivisionError("by chance")
        return real(store, task, *rest, **options)

    monkeypatch.setattr(job_module, "convert_source", fussy)
    record = convert(local_store, card, recordings, tmp_path / "out")
    assert record.converted == 2
    reasons = {Path(item.source).name: item.reason or "" for item in record.failed}
    assert set(reasons) == {"notes.wav", "1.wav"}
    assert "by chance" in reasons["1.wav"]
    monkeypatch.undo()
    assert convert(local_store, card, recordings, tmp_path / "out").converted == 1, "its entry in the journal says failed"


def test_what_concerns_every_file_is_said_once(local_store: Store, publish: Publish, recordings: Path, tmp_path: Path) -> None:
    card = publish("frames")
    local_store.write_bytes(card.files["offline"].key, b"not what was published")
    with pytest.raises(StoreError, match="not the published file"):
        convert(local_store, card, recordings, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.flac"))


def test_the_caller_s_threads_stay_as_they_were(local_store: Store, publish: Publish, recordings: Path, tmp_path: Path) -> None:
    card = publish("mirror")
    torch.set_num_threads(2)
    try:
        convert(local_store, card, recordings, tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def request(store: Store, recordings: Path, output: Path, **options: Any) -> ConversionRecord:
    values: dict[str, Any] = {
        "parameters": ConversionParameters(format="flac"),
        "chunk_seconds": 20.0,
        "workers": None,
        **options,
    }
    return archives.convert(store, ["frames@1"], [str(recordings)], str(output), **values)[0]


class ReachedRay(Exception):
    """In the place of Ray's start."""


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*arguments: object, **options: object) -> None:
        raise ReachedRay

    monkeypatch.setattr(cluster, "connected", reached)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_ray")
def test_workers_an_address_or_a_large_corpus_take_ray(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("frames")
    told = Told()
    assert request(local_store, recordings, tmp_path / "out", progress=told).converted == 3
    assert told.stages == ["listing recordings", "looking for finished ones", "converting"]
    listing, looking = [(n, 0, "recordings") for n in range(1, 5)], [(n, 4, "recordings") for n in range(1, 5)]
    assert told.counts == [*listing, *looking, *[(n, 4, "recordings") for n in range(5)]]
    with pytest.raises(ReachedRay):
        request(local_store, recordings, tmp_path / "out", workers=1)
    with pytest.raises(ConversionError, match="one worker"):
        request(local_store, recordings, tmp_path / "out", workers=0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ReachedRay):
        request(local_store, recordings, tmp_path / "out")
    monkeypatch.delenv("RAY_ADDRESS")
    soundfile.write(recordings / "an hour.flac", np.zeros(3600 * 8000), 8000)
    with pytest.raises(ReachedRay):
        request(local_store, recordings, tmp_path / "out")


PROGRAM = """
import sys
from rave_dist.cli import command
command()(sys.argv[1:], standalone_mode=False)
print(*sorted({"ray", "rave", "pyarrow", "boto3", "scipy", "matplotlib"} & set(sys.modules)))
"""


def test_the_command_loads_nothing_that_it_does_not_need(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("frames")
    (recordings / "notes.wav").unlink()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = ["convert", "--store", local_store.uri, "--model", "frames@1", str(recordings), str(tmp_path / "out")]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "3 converted" in ran.stdout.splitlines()[0]
    assert ran.stdout.splitlines()[-1] == "pyarrow", "for the journal's table"


def test_the_command_writes_table_and_page_and_says_where(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("frames")
    page = tmp_path / "page.html"
    arguments = ["convert", "--store", local_store.uri, "--model", "frames@1", "--page", str(page)]
    code = command()([*arguments, str(recordings), str(tmp_path / "out")], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    (record,) = (local_store.read_json(entry.key) for entry in local_store.list("conversions") if "record" in entry.key)
    assert code == 3
    assert lines[0].startswith("frames@1: 3 converted (0:03.0), 0 skipped, 1 failed")
    assert lines[1].startswith("frames@1 keeps, in the median: onsets")
    assert lines[2].startswith("0.00 hours of audio in 0:")
    assert lines[3:] == [f"journal: {local_store.uri}/conversions/{record['id']}/journal.parquet", f"page: {page}"]
    assert {Path(item.source).name for item in read_table(local_store, record["id"])} == {
        "0.wav",
        "1.wav",
        "2.wav",
        "notes.wav",
    }
    text = page.read_text(encoding="utf-8")
    assert text.count("data:audio/mpeg") == 6
    assert "notes.wav" in text


@pytest.mark.parametrize("page", ["page.txt", "absent/page.html", "folder.html"])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_converted(
    local_store: Store, publish: Publish, recordings: Path, tmp_path: Path, page: str
) -> None:
    publish("frames")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConversionError) as caught:
        request(local_store, recordings, tmp_path / "out", page=tmp_path / page)
    assert caught.value.fix
    assert not (tmp_path / "out").exists()


def test_the_command_names_what_came_out_wrong_with_a_fix_and_exit_code_3(
    local_store: Store, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "sound.wav", np.full(1000, 0.25), 16000)
    soundfile.write(tmp_path / "in" / "odd.wav", np.zeros(1000), 96001)

    def run(kind: str, *options: str) -> tuple[int, str, str]:
        publish(kind)
        arguments = [
            "convert",
            "--store",
            local_store.uri,
            "--model",
            kind,
            "--trust",  # one of these networks has operators that no export has
            "--format",
            "flac",
            *options,
            str(tmp_path / "in"),
            str(tmp_path / kind),
        ]
        code = command()(arguments, standalone_mode=False)
        return code or 0, *capsys.readouterr()

    code, out, err = run("quiet")
    assert code == 3
    assert out.splitlines()[0].endswith("2 converted (0:00.1), 0 skipped, 0 failed, 1 silent")
    assert "odd.wav: written as WAV, because FLAC holds sample rates above 65535 Hz in steps of 10 Hz" in err
    assert "sound.wav: the output is silent, the recording is not (peak -12.0 dBFS)" in err
    assert "fix: convert with another model" in err
    code, out, _ = run("quiet", "--json")
    document = json.loads(out)
    assert (code, document["skipped"]) == (3, 2), "also on a rerun"
    assert [Path(item["source"]).name for item in document["silent"]] == ["sound.wav"]
    assert [Path(item["output"]).name for item in document["other_format"]] == ["odd.wav"]
    code, out, err = run("broken")
    assert (code, out.splitlines()[0].endswith(", 0 failed, 1 clipped")) == (3, True)
    assert "1,000 samples in 0.062 s were up to 6.0 dB over full scale" in err
    (tmp_path / "in" / "sound.wav").unlink()
    assert run("mirror")[0] == 0, "a WAV file in the place of FLAC is no failure"
