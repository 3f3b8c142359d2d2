"""Stores that work and stores that do not: folders, and a real S3 server with a user who may only read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rave_dist.cli import app
from rave_dist.doctor import Request, store
from rave_dist.exit_codes import PARTIAL
from rave_dist.storage.store import Store
from tests.conftest import BUCKET


def states(place: Store) -> dict[str, str]:
    return {diagnosis.name: diagnosis.state for diagnosis in store.store(Request(place))}


def test_a_folder_is_tried_and_left_as_it_was(local_store: Store) -> None:
    Path(local_store.uri).mkdir()
    found = states(local_store)
    assert found == {"store": "ok", "clock": "ok", "store disk": found["store disk"]}
    assert list(Path(local_store.uri).iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_not_made(local_store: Store) -> None:
    assert states(local_store)["store"] == "ok"
    assert not Path(local_store.uri).exists()


def test_a_folder_in_which_nothing_can_be_written() -> None:
    """Not by root either."""
    found = list(store.operations(Store("/proc/self/store")))
    assert [diagnosis.state for diagnosis in found] == ["error"]
    assert "/proc/self/store" in found[0].what


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = store.operations(Store(str(tmp_path / "file")))
    assert found.state == "error"
    assert "file" in found.what
    assert found.fix


def test_s3_is_tried_and_left_as_it_was(s3_store: Store) -> None:
    assert states(s3_store) == {"S3 settings": "ok", "store": "ok", "clock": "ok"}
    assert list(s3_store.list()) == []


def test_the_s3_settings_are_named_without_the_secret(s3_server: str) -> None:
    diagnosis = store.s3_settings()
    assert os.environ["AWS_ENDPOINT_URL"] in diagnosis.what
    assert "us-east-1" in diagnosis.what
    assert "from env" in diagnosis.what
    assert "secret" not in diagnosis.model_dump_json()


def test_s3_keys_that_may_only_read(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "readerkey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "readersecret")
    (found,) = store.operations(s3_store)
    assert found.state == "error"
    assert "refused" in found.what


def test_no_s3_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (found,) = store.operations(Store(f"s3://{BUCKET}"))
    assert found.state == "error"
    assert "AWS_ENDPOINT_URL" in found.fix


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (0.4, "ok", "agrees"),
        (-4.0, "ok", "agrees"),
        (60.0, "warning", "60 s behind"),
        (-60.0, "warning", "60 s ahead of"),
        (2000.0, "error", "2000 s behind"),
    ],
)
def test_clocks(ahead: float, state: str, words: str) -> None:
    diagnosis = store.clock(ahead)
    assert diagnosis.state == state
    assert words in diagnosis.what


def test_the_command_names_all_and_ends_with_3(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/gone")
    ran = CliRunner().invoke(app, ["doctor", "--no-ray", "--store", local_store.uri, "--json"])
    assert ran.exit_code == PARTIAL
    document = json.loads(ran.stdout)
    assert document["ok"] is False
    wrong = [check for check in document["checks"] if check["state"] == "error"]
    assert [check["name"] for check in wrong] == ["temporary files"]
    assert all(check["fix"] for check in wrong)
    named = {check["name"] for check in document["checks"]}
    assert named >= {
        "Python",
        "packages",
        "torch",
        "GPU",
        "acids-rave",
        "audio files",
        "memory",
        "home",
        "locale",
        "store",
        "Ray",
    }


def test_the_command_shows_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    ran = CliRunner().invoke(app, ["doctor", "--no-ray"])
    lines = ran.stdout.splitlines()
    assert all(line.startswith(("ok ", "warning ", "skipped ", "error ", " ")) for line in lines), lines
    assert all(line[26] == " " and line[27] != " " for line in lines), "what was found stands in one column"
    assert ran.stdout.isascii()
