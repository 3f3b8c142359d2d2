"""What a cluster gets of a library, what is refused before anything is uploaded, and how a job is followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rave_dist.cli import app
from rave_dist.cluster.jobs import Job
from rave_dist.errors import ClusterError, LibraryError
from rave_dist.library.manifest import Library, load_library
from rave_dist.progress import Silent
from rave_dist.storage.store import Store
from rave_dist.submission.follow import follow
from rave_dist.submission.package import package_manifest

MANIFEST = """
name: drums
store: {store}
max_concurrent: 3
defaults:
  config: [v2_small, causal]
  override: {{CAPACITY: 4}}
  budget: {{hours: 0.5}}
  augment: low-data
  credit: {{place: Kota Bharu, date: "2024"}}
  placement: {{accelerator: H100}}
instruments:
  low: {{sources: [low, "s3://bucket/low"], seed: 7, base: kompang, batch: auto}}
  "12": {{sources: "high/*.wav", checkpoint: {{steps: 4}}}}
"""


def _write(folder: Path, store: str, text: str = MANIFEST) -> Path:
    path = folder / "library.yaml"
    path.write_text(text.format(store=store))
    return path


def test_the_packaged_manifest_means_the_same(any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = load_library(_write(tmp_path, any_store.uri))
    address = package_manifest(library, {"low": ("s3://bucket/store/recordings/x", "s3://bucket/low")})
    monkeypatch.chdir("/")
    packaged = load_library(address)
    assert (packaged.name, packaged.store, packaged.instruments) == (library.name, library.store, library.instruments)
    assert packaged.manifest.max_concurrent == 3
    for name in library.instruments:
        assert packaged.settings(name) == library.settings(name)
        assert packaged.training_spec(name, dataset="d", base=None) == library.training_spec(name, dataset="d", base=None)
    assert packaged.sources("low") == ("s3://bucket/store/recordings/x", "s3://bucket/low")
    assert packaged.sources("12") == (str(tmp_path / "high/*.wav"),)
    with pytest.raises(LibraryError, match=r"nothing is stored there|no such file"):
        load_library(address.replace("drums", "absent"))


def test_a_folder_of_this_machine_is_refused_before_anything_happens(tmp_path: Path) -> None:
    path = _write(tmp_path, "./store")
    done = CliRunner().invoke(app, ["submit", str(path)], env={"RAY_ADDRESS": "127.0.0.1:1"})
    assert done.exit_code == 1
    assert "which the cluster cannot reach" in done.output
    assert "s3://bucket/prefix" in done.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["library.yaml"]


def test_a_stock_run_of_this_machine_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "s3://bucket/store", MANIFEST.replace("base: kompang", "base: {{stock: runs/old}}"))
    done = CliRunner().invoke(app, ["submit", str(path)], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "the stock run is a folder of this machine" in done.output
    assert "--only low" in done.output


def test_a_program_of_this_machine_cannot_be_notified(tmp_path: Path) -> None:
    """The run would end with a warning, hours later."""
    path = _write(tmp_path, "s3://bucket/store", MANIFEST + "\non_end: [./notify.sh, night]\n")
    done = CliRunner().invoke(app, ["submit", str(path)], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "on_end: ./notify.sh" in done.output
    assert "http(s) address" in done.output


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("RAY_ADDRESS", "", "no cluster is named"),
        ("RAY_ADDRESS", "127.0.0.1:1", "Ray does not answer"),
        ("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1", "Ray's dashboard does not answer"),
    ],
)
def test_without_a_cluster_nothing_is_uploaded(name: str, address: str, said: str, s3_store: Store, tmp_path: Path) -> None:
    path = _write(tmp_path, s3_store.uri)
    done = CliRunner().invoke(app, ["submit", str(path)], env={name: address, "COLUMNS": "300"})
    assert (done.exit_code, said in done.output) == (1, True), done.output
    assert list(s3_store.list()) == []


class Night:
    """A cluster by a script: each element is what the next question is answered with."""

    def __init__(self, *answers: Job | ClusterError | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    def job(self, identity: str) -> Job | None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.asked += 1
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    def log(self, identity: str) -> str:
        return "".join(f"line {number}\n" for number in range(self.asked)) + "half"


class Said(Silent):
    """Notes what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


AWAY = ClusterError("Ray does not answer", where="head")
RUNNING, DONE = Job("drums-1", "running"), Job("drums-1", "succeeded", exit_code=0)


@pytest.fixture
def library(local_store: Store) -> Library:
    return Library.from_dict({"name": "drums", "store": local_store.uri, "instruments": {"low": {"sources": "low"}}})


def test_each_line_is_shown_once_and_a_short_silence_is_survived(library: Library) -> None:
    said = Said()
    night = Night(RUNNING, AWAY, AWAY, RUNNING, DONE)
    assert follow(night, "drums-1", library, None, said, poll_seconds=0) == DONE
    assert said.lines == [*(f"line {number}" for number in range(5)), "half"]


def test_a_lost_connection_says_that_the_job_goes_on(library: Library) -> None:
    with pytest.raises(ClusterError, match="drums-1 continues without this command") as lost:
        follow(Night(RUNNING, AWAY), "drums-1", library, None, Said(), poll_seconds=0, patience_seconds=0)
    assert "same command" in lost.value.fix


def test_a_job_that_went_with_its_head_is_not_waited_for(library: Library) -> None:
    with pytest.raises(ClusterError, match="no longer knows the job"):
        follow(Night(RUNNING, None), "drums-1", library, None, Said(), poll_seconds=0)
