"""What the terminal shows of a dataset: unused seconds, warnings, and what was passed over."""

from __future__ import annotations

import pytest

from rave_dist.pipeline import Ingested
from rave_dist.records import PassedOver, Rejection
from rave_dist.terminal import console
from tests.sample_records import dataset_manifest, source_record

LOUD = source_record(
    source="/in/[a].wav",
    seconds=2.0,
    used_seconds=1.5,
    gain=0.5,
    warnings=("over full scale: its peak is +6.02 dBFS; scaled by 0.5 (-6.02 dB)", "recorded at 8000 Hz"),
)
CUT = Rejection(source="/in/[a].wav", seconds=0.5, reason="truncated: only 1.500 s of 2.000 s can be read", unreadable=True)
PASSED = (
    PassedOver(
        reason="a link to a missing file", extension=".flac", count=4, names=("/in/1.flac", "2", "3", "4"), missing=True
    ),
    PassedOver(reason="hidden", extension="", count=1, names=("/in/.git",)),
)
MANIFEST = dataset_manifest(
    id="0123456789ab",
    sources=(LOUD,),
    rejected=(CUT,),
    used_seconds=1.5,
    passed_over=PASSED,
    notes=("/in/[a]*: [a] stands for one of the characters in it",),
)


def test_a_dataset_is_shown_with_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_ingested([Ingested("drum", MANIFEST)])
    shown = capsys.readouterr()
    assert shown.out == "drum: dataset 0123456789ab, 0:01.5 used of 0:02.0\n"
    assert shown.err.splitlines() == [
        "  – /in/[a].wav: 0.500 s, truncated: only 1.500 s of 2.000 s can be read",
        "  – /in/[a].wav: over full scale: its peak is +6.02 dBFS; scaled by 0.5 (-6.02 dB)",
        "  – /in/[a].wav: recorded at 8000 Hz",
        "– drum: 4 .flac not used, a link to a missing file: /in/1.flac, 2, 3, …",
        "– drum: 1 not used, hidden: /in/.git",
        "– drum: /in/[a]*: [a] stands for one of the characters in it",
    ]


def test_the_document_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    document = Ingested("drum", MANIFEST).to_json()
    assert document["warnings"] == [{"source": LOUD.source, "what": what} for what in LOUD.warnings]
    assert [(entry["extension"], entry["count"], entry["missing"]) for entry in document["passed_over"]] == [
        (".flac", 4, True),
        ("", 1, False),
    ]
    assert document["notes"] == list(MANIFEST.notes)
    assert document["rejected"][0]["seconds"] == 0.5


def test_the_end_says_what_the_training_cost(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_spent({"gpu_hours": 1.5, "core_hours": 0.0, "cost": 3.75})
    console.show_spent({"gpu_hours": 1.5, "core_hours": 0.25})
    console.show_spent({"gpu_hours": 0.0, "core_hours": 0.0, "cost": 0.0})
    assert capsys.readouterr().out.splitlines() == [
        "training took 1.50 GPU-hours, 3.75 for the GPUs",
        "training took 1.50 GPU-hours and 0.25 core-hours",
    ]
