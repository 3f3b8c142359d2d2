"""Where jobs may write: never into the store, never over what no journal wrote, only where the operator allows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rave_dist.conversion.corpus import Plan, output_tag, plan_conversion
from rave_dist.errors import RequestError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem, ConversionParameters, ConversionRequest
from rave_dist.serving.access import Access
from rave_dist.storage.store import Store


@pytest.fixture
def planned(backend: Any, tmp_path: Path) -> Callable[..., Plan]:
    """A plan for two recordings, ``a`` and ``b``, with OUTPUT ``out``."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", np.full(100, 0.1), 8000)

    def make(**parameters: Any) -> Plan:
        return plan_conversion(
            backend.cards[0], [str(folder)], str(tmp_path / "out"), ConversionParameters(**{"format": "flac", **parameters})
        )

    return make


def convert(store: Store, plan: Plan) -> None:
    """Outputs and journal, as a conversion leaves them."""
    ConversionRequest(model="rebana@aaa", parameters=plan.parameters, output=plan.output.uri).save(store, plan.folder.request)
    for task in plan.tasks:
        plan.output.write_bytes(task.output, b"converted")
        ConversionItem(
            source=task.source.name,
            source_sha256="0",
            output=plan.output.address(task.output),
            output_tag=output_tag(plan, task.output),
            state="converted",
        ).save(store, plan.journal_key(task))


@pytest.mark.parametrize("output", ["store", "store/models", "store/../store/new", "link/models", "."])
def test_output_that_overlaps_the_store_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with pytest.raises(RequestError, match="the service's own store") as refused:
        Access(str(tmp_path / "store")).check(["/archive"], f"{tmp_path}/{output}")
    assert refused.value.fix


@pytest.mark.parametrize(
    "output", ["s3://bucket/library", "S3://bucket/library/models/", "s3://bucket", "s3://bucket/library//x"]
)
def test_output_that_overlaps_a_store_on_s3_is_refused(output: str) -> None:
    access = Access("s3://bucket/library")
    with pytest.raises(RequestError, match="the service's own store"):
        access.check(["/archive"], output)
    access.check(["/archive"], "s3://bucket/library-converted")


@pytest.mark.parametrize("output", ["/", "/etc", "/etc/new", "/usr/lib", "/proc/1", "/tmp/../etc", "file:///etc"])
def test_system_folders_are_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(RequestError, match=r"system|own store"):
        Access(str(tmp_path / "store")).check(["/archive"], output)


def test_a_link_to_a_system_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(RequestError, match="a folder of the system"):
        Access(str(tmp_path / "store")).check(["/archive"], str(tmp_path / "out" / "new"))


def test_operators_say_where_jobs_read_and_write(tmp_path: Path) -> None:
    access = Access(str(tmp_path / "store"), (str(tmp_path / "out"), "s3://results/jobs"), (str(tmp_path / "archive"),))
    inside = [str(tmp_path / "archive" / "1974" / "*.wav")]
    access.check(inside, str(tmp_path / "out" / "drums"))
    access.check(inside, "s3://results/jobs/drums")
    for output in (tmp_path / "output", tmp_path / "out" / ".." / "other", "s3://results/jobs-2", "s3://other/jobs"):
        with pytest.raises(RequestError, match="may write to") as refused:
            access.check(inside, str(output))
        assert "--outputs-below" in refused.value.fix
    for address in ("/", str(tmp_path / "archive" / ".." / "private"), "s3://bucket/archive"):
        with pytest.raises(RequestError, match="may read") as refused:
            access.check([*inside, address], str(tmp_path / "out"))
        assert refused.value.where == address


def test_folders_of_operators_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    access = Access("store", ("out",), ("s3://bucket/archive/",))
    monkeypatch.chdir("/")
    access.check(["s3://bucket/archive/1974"], str(tmp_path / "out"))
    assert access.outputs == (str(tmp_path / "out"),)


def test_addresses_that_are_none_are_errors_of_the_request(tmp_path: Path) -> None:
    for output in ("gopher://x/y", "s3://"):
        with pytest.raises(RequestError):
            Access(str(tmp_path / "store")).check(["/archive"], output)


def test_foreign_files_are_refused_one_by_one_and_stay(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    access, plan = Access(local_store.uri), planned()
    plan.output.write_bytes("a.flac", b"somebody's recording")
    kept, refused = access.split(local_store, plan, overwrite=False)
    assert [task.output for task in kept.tasks] == ["b.flac"]
    (item,) = refused
    assert (Path(item.source).name, item.state) == ("a.wav", "failed")
    assert "overwrite: true" in (item.fix or "")
    assert (tmp_path / "out" / "a.flac").read_bytes() == b"somebody's recording"
    assert access.split(local_store, plan, overwrite=True) == (plan, [])


def test_files_of_the_store_s_journals_may_be_replaced_until_somebody_changes_them(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    access, plan = Access(local_store.uri), planned()
    convert(local_store, plan)
    assert access.split(local_store, plan, overwrite=False) == (plan, [])
    other = planned(seed=7)
    assert other.id != plan.id
    assert access.split(local_store, other, overwrite=False) == (other, []), "of another conversion into the same OUTPUT"
    assert access.split(Store(f"{tmp_path}/other"), plan, overwrite=False)[0].tasks == (), "of another store"
    (tmp_path / "out" / "b.flac").write_bytes(b"edited by hand")
    kept, refused = access.split(local_store, plan, overwrite=False)
    assert [task.output for task in kept.tasks] == ["a.flac"]
    assert [Path(item.output).name for item in refused] == ["b.flac"]


def test_a_result_whose_service_died_before_its_journal_is_known_by_its_comment(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned()
    (tmp_path / "out").mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        with soundfile.SoundFile(tmp_path / "out" / f"{name}.flac", "w", 8000, 1) as file:
            sha256 = hash_file(tmp_path / "recordings" / f"{name}.wav")
            file.comment = f"rave-dist: {name}.wav (sha256 {sha256}) through {plan.card.reference}, seed {seed}"
            file.write(np.full(100, 0.2))
    kept, refused = Access(local_store.uri).split(local_store, plan, overwrite=False)
    assert [task.output for task in kept.tasks] == ["a.flac"]
    assert [Path(item.output).name for item in refused] == ["b.flac"], "of another seed"


def test_a_link_below_output_does_not_lead_into_the_store(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned()
    os.makedirs(f"{local_store.uri}/models")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(f"{local_store.uri}/models")
    deep = replace(plan, tasks=tuple(replace(task, output=f"deep/{task.output}") for task in plan.tasks))
    kept, refused = Access(local_store.uri).split(local_store, deep, overwrite=True)
    assert kept.tasks == ()
    assert {item.reason for item in refused} == {"a link leads elsewhere, and its output overlaps the service's own store"}


@pytest.mark.parametrize("target", ["/etc", "elsewhere"])
def test_a_link_below_output_leads_neither_into_the_system_nor_out_of_what_the_operator_allows(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path, target: str
) -> None:
    plan = planned()
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "deep").symlink_to(tmp_path / target)
    deep = replace(plan, tasks=tuple(replace(task, output=f"deep/{task.output}") for task in plan.tasks))
    kept, refused = Access(local_store.uri, outputs=(str(tmp_path / "out"),)).split(local_store, deep, overwrite=True)
    assert kept.tasks == ()
    assert all("a link leads elsewhere" in (item.reason or "") and item.fix for item in refused)


def test_a_link_below_an_input_does_not_lead_out_of_what_the_operator_allows(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    soundfile.write(tmp_path / "private.wav", np.full(100, 0.1), 8000)
    for name, target in (("own.wav", tmp_path / "recordings" / "a.wav"), ("other.wav", tmp_path / "private.wav")):
        (tmp_path / "archive" / name).symlink_to(target)
    card = planned().card
    plan = plan_conversion(card, [str(tmp_path / "archive")], str(tmp_path / "out"), ConversionParameters(format="flac"))
    access = Access(local_store.uri, inputs=(str(tmp_path / "archive"), str(tmp_path / "recordings")))
    kept, refused = access.split(local_store, plan, overwrite=False)
    assert [task.output for task in kept.tasks] == ["own.flac"]
    assert [Path(item.source).name for item in refused] == ["other.wav"]


def test_the_wav_file_in_the_place_of_flac_replaces_no_foreign_file(
    local_store: Store, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "recordings" / "fast.wav", np.full(4000, 0.1), 384_001)  # a rate that FLAC cannot hold
    plan = planned()
    plan.output.write_bytes("fast.wav", b"somebody's recording")
    plan.output.write_bytes("a.wav", b"not in the way of a.flac")
    kept, refused = Access(local_store.uri).split(local_store, plan, overwrite=False)
    assert not refused
    assert len(kept.tasks) == 3
    assert kept.protected == {"a.wav", "fast.wav"}, "what a conversion that becomes a WAV file must not replace"
    assert Access(local_store.uri).split(local_store, plan, overwrite=True) == (plan, [])
