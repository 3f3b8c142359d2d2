"""A terminal that lacks characters ends no command, and a narrow one shortens no name of a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rave_dist.storage.store import Store
from rave_dist.terminal import console
from tests.sample_records import model_card

pytestmark = pytest.mark.slow

NAME = "kompang-from-the-archive-of-johor-1974"


def _run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "rave_dist", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
def test_messages_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    manifest = tmp_path / "büchse-太鼓.yaml"
    manifest.write_text(f"name: a\nstore: {tmp_path / 'store'}\ninstruments: {{太鼓: {{sources: x}}}}\n", encoding="utf-8")
    done = _run("check", manifest, PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 1
    text = done.stderr.decode(encoding)
    assert "Latin letters" in text
    assert "internal error" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--format=mp3", "'mp3' is not one of 'keep'"),
        ("--seed=x", "whole number"),
        ("--sample-rate=44.1", "whole number"),
        ("--chunk-seconds=0", "0.5"),
        ("--channels=9", "8"),
    ],
)
def test_wrong_options_are_explained_without_a_parser_s_words(tmp_path: Path, option: str, said: str) -> None:
    done = _run("convert", "--store", tmp_path, "--model", "rebana", option, "in", "out", COLUMNS="200")
    assert done.returncode == 2
    shown = done.stderr.decode()
    assert said in shown
    assert option.partition("=")[0] in shown
    for word in ("Value error", "Input should", "unable to parse"):
        assert word not in shown


def test_output_to_a_full_disk_is_no_internal_error(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "rave_dist", "models", "--store", str(tmp_path)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"the disk is full" in done.stderr
    assert b"internal error" not in done.stderr


def test_an_empty_address_is_not_the_current_folder(tmp_path: Path) -> None:
    for arguments in (("models", "--store", ""), ("convert", "--store", str(tmp_path), "--model", "rebana", "in", "")):
        done = _run(*arguments)
        assert done.returncode == 1, done.stdout
    assert b"an address is empty" in _run("models", "--store", "").stderr


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.failure("take\n2\x1b[31m \udcff [bold]太鼓\u3000.wav", "damaged")
    assert capsys.readouterr().err == "✗ take\\n2\\x1b[31m \\xff [bold]太鼓\u3000.wav: damaged\n"


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_models_are_shown_whole_with_the_latest_and_its_day(tmp_path: Path, columns: str) -> None:
    store = Store(str(tmp_path / "store"))
    cards = [
        model_card(name=NAME, version=version, created_at=f"2026-11-{day}T10:00:00+00:00")
        for version, day in (("0123456789ab", "24"), ("ba9876543210", "25"))
    ]
    for card in cards:
        card.save(store, card.folder.card)
    done = _run("models", "--store", store.uri, COLUMNS=columns, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert all(card.reference in shown for card in cards)
    assert "2026-11-25" in shown
    assert shown.count("latest") == 1
    document = json.loads(_run("models", "--store", store.uri, "--json", PYTHONIOENCODING="ascii").stdout)
    assert [model["latest"] for model in document["models"]] == [False, True]
