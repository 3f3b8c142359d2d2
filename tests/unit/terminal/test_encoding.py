"""A terminal that lacks characters ends no command, and a narrow one shortens no name of a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rave_dist.storage.store import Store
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
