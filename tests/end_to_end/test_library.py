"""Recordings in, playable models and a page out: the whole command, on a folder; on S3 in `tests/cluster`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.records import Continuation, DatasetFolder, DatasetManifest, TrainingSpec
from rave_dist.storage.store import Store

RUN_KEYS = {"name", "state", "phase", "step", "steps", "validation", "model", "error"}
STAGES = [
    "checking",
    "starting Ray",
    "reading recordings",
    "preparing the runs",
    "measuring a step",
    "training",
    "writing the page",
]
MODEL_KEYS = {"name", "version", "config", "sample_rate", "channels", "latents", "phase", "step", "seconds", "files"}


def test_a_library_from_recordings_to_converted_archive(
    local_store: Store, tmp_path, rave_dist, drums, write_library, write_sound
) -> None:
    """229 seconds of drums, in two files and in eighty."""
    write_sound(tmp_path / "recordings/rebana/take 1.wav", drums(200, seed=1))
    write_sound(tmp_path / "recordings/rebana/täke-2.wav", drums(29, seed=2))
    (tmp_path / "recordings/rebana/notes.wav").write_text("this is no recording")
    for number, piece in enumerate(np.array_split(drums(229, seed=3, pitch=180), 80)):
        write_sound(tmp_path / f"recordings/kompang/{number:02d}.wav", piece)
    library = write_library(
        local_store.uri,
        """
        rebana: {sources: [recordings/rebana], credit: {performer: A. Person, licence: CC-BY-4.0}}
        kompang: {sources: [recordings/kompang]}
        silent: {sources: [recordings/nothing-here/*.wav]}
        """,
    )

    checked = rave_dist("check", library, "--json")
    assert checked.code == 3, checked.stderr
    rows = {row["name"]: row for row in checked.document["instruments"]}
    assert [rows[name]["ok"] for name in ("rebana", "kompang", "silent")] == [True, True, False]
    assert rows["silent"]["problems"][0]["fix"]
    assert checked.document["engine"]["licence"] == "CC BY-NC 4.0"
    assert rows["kompang"]["seconds"] == pytest.approx(229, abs=0.001)

    ran = rave_dist("run", library, "--json")
    assert ran.code == 3, ran.stderr
    rows = {row["name"]: row for row in ran.document["instruments"]}
    assert all(row.keys() >= RUN_KEYS for row in rows.values())
    assert {name: row["state"] for name, row in rows.items()} == {"rebana": "done", "kompang": "done", "silent": "failed"}
    assert "nothing-here" in rows["silent"]["error"]["what"]
    told = ran.stderr.splitlines()
    assert [line for line in told if line in STAGES] == STAGES
    assert told[0] == STAGES[0]
    assert "rebana: 3 of 3 recordings" in told
    for name in ("rebana", "kompang"):
        activities = [line.removeprefix(f"{name}: ") for line in told[told.index("training") :] if line.startswith(f"{name}: ")]
        assert activities[0].startswith(("waiting", "starting"))
        assert activities[-1] == "done"
    for name in ("rebana", "kompang"):
        assert (rows[name]["phase"], rows[name]["step"], rows[name]["steps"]) == (2, 16, 16)
        assert np.isfinite(list(rows[name]["validation"].values())).all()
    rejected = {r["source"].rsplit("/", 1)[-1] for i in ran.document["ingested"] for r in i["rejected"] if r["unreadable"]}
    assert rejected == {"notes.wav"}
    for item, count in zip(ran.document["ingested"], (2, 80), strict=True):
        manifest = DatasetManifest.model_validate(
            local_store.read_json(DatasetFolder.of(item["name"], item["dataset"]).manifest)
        )
        assert len(manifest.sources) == count
        assert manifest.seconds == pytest.approx(229, abs=0.001)

    models = rave_dist("models", "--store", local_store.uri, "--json").document["models"]
    assert {model["name"] for model in models} == {"rebana", "kompang"}
    assert all(model["latents"] > 1 for model in models)
    assert all(model.keys() >= MODEL_KEYS and model["files"].keys() == {"offline", "streaming"} for model in models)
    page = local_store.read_bytes("report/index.html").decode()
    assert "rebana" in page
    assert "CC-BY-4.0" in page
    assert "acids-rave 2.3.1, CC BY-NC 4.0" in page
    assert page.count("non-commercial use") == 1  # the terms, once for all models
    assert "nothing-here" in page

    # The same command again has nothing to do: the same models, untouched.
    before = {entry.key: entry.tag for entry in local_store.list("models") if entry.key.endswith(".ts")}
    again = rave_dist("run", library, "--json")
    assert again.code == 3
    assert [r["model"] for r in again.document["instruments"]] == [r["model"] for r in ran.document["instruments"]]
    assert {e.key: e.tag for e in local_store.list("models") if e.key.endswith(".ts")} == before

    archive = write_sound(tmp_path / "archive/dawn.wav", drums(5, seed=9))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    arguments = ("convert", "--store", local_store.uri, "--model", "rebana", "--json", tmp_path / "archive", tmp_path / "out")
    converted = rave_dist(*arguments)
    assert converted.code == 0, converted.stderr
    assert (converted.document["converted"], converted.document["skipped"], converted.document["failed"]) == (1, 0, [])
    assert soundfile.info(tmp_path / "out/dawn.wav").frames == soundfile.info(archive).frames
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
    assert rave_dist(*arguments).document["skipped"] == 1


@pytest.mark.parametrize("command", ["check", "ingest", "train", "run", "status", "report"])
@pytest.mark.parametrize(
    ("text", "word", "fix"),
    [
        ("name: x\nstore: s\ninstrumnets: {a: {sources: [b]}}", "instrumnets", "instruments"),
        ("name: x\nstore: s\ndefaults: {sample_rate: fast}\ninstruments: {a: {sources: [b]}}", "fast", "sample_rate"),
    ],
)
def test_a_wrong_manifest_is_one_message_with_a_fix(command, text, word, fix, tmp_path: Path, rave_dist) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    outcome = rave_dist(command, tmp_path / "wrong.yaml")
    assert outcome.code == 1
    assert word in outcome.stderr
    assert fix in outcome.stderr.split("fix", 1)[1]
    assert "Traceback" not in outcome.stderr
    assert not outcome.stdout
    assert not (tmp_path / "s").exists()


def test_a_store_without_permission_is_known_before_any_work(tmp_path, rave_dist, drums, write_library, write_sound) -> None:
    write_sound(tmp_path / "a.wav", drums(10, seed=4))
    library = write_library("/proc/rave-dist-store", "a: {sources: [a.wav]}\n")
    outcome = rave_dist("run", library)
    assert outcome.code in (1, 3)
    assert "/proc/rave-dist-store" in outcome.stderr
    assert "fix" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_ctrl_c_is_one_message_the_rerun_goes_on_and_a_larger_budget_continues_it(
    local_store, tmp_path, rave_dist, drums, write_library, write_sound
) -> None:
    write_sound(tmp_path / "drums.wav", drums(14, seed=1))
    instruments = "drums: {sources: [drums.wav]}\n"
    library = write_library(local_store.uri, instruments, steps=12)
    for command, seconds in (("run", 2.0), ("ingest", 9.0), ("run", 12.0), ("run", 25.0)):
        stopped = rave_dist(command, library, "--json", interrupt_after=seconds)
        if stopped.code == 0:
            continue
        assert stopped.code == 130, stopped.stderr
        assert stopped.stderr.casefold().count("stopped") == 1
        assert "Traceback" not in stopped.stderr, stopped.stderr
        assert not stopped.stdout
    ended = rave_dist("run", library, "--json")
    assert ended.code == 0, ended.stderr
    (first,) = ended.document["instruments"]
    assert (first["state"], first["step"], first["phase_1_steps"]) == ("done", 12, 8)
    folder = f"runs/small/drums/{first['run_id']}"
    before = {entry.key: entry.tag for entry in local_store.list(folder)}

    larger = write_library(local_store.uri, instruments, steps=24)
    (shown,) = rave_dist("status", larger, "--json").document["instruments"]
    assert shown["outdated"] == ["this run belongs to an earlier manifest: budget changed since"]
    ran = rave_dist("run", larger, "--json")
    assert ran.code == 0, ran.stderr
    assert "drums: continues the run of 12 steps" in ran.stderr.splitlines()
    (row,) = ran.document["instruments"]
    assert (row["state"], row["step"], row["steps"], row["phase_1_steps"]) == ("done", 24, 24, 8)
    spec = TrainingSpec.load(local_store, f"runs/small/drums/{row['run_id']}/spec.json")
    assert spec.continues == Continuation(run_id=first["run_id"], step=12)
    assert {entry.key: entry.tag for entry in local_store.list(folder)} == before
    assert rave_dist("status", larger, "--json").document["in_use"] is None
    again = rave_dist("train", larger, "--json").document["instruments"]
    assert [each["run_id"] for each in again] == [row["run_id"]]
