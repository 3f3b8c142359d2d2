"""A manifest of conversions: what reads the same recordings reads them once, and one that fails leaves the others alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rave_dist import archives
from rave_dist.archives.batch import convert_batch
from rave_dist.cli import command
from rave_dist.conversion import file as file_module
from rave_dist.errors import ConversionError, RaveDistError
from rave_dist.identity import hash_file
from rave_dist.library.conversions import read_conversions
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard, Treatment
from rave_dist.storage.store import Store

MANIFEST = """\
defaults: {inputs: field, models: frames}
conversions:
  - output: out/one
  - output: out/seeded
    seed: 7
  - output: out/mixed
    mix: 0.5
  - output: out/all
    models: all
  - output: out/single.wav
    inputs: field/1.wav
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def store(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store, tmp_path: Path) -> Store:
    """With two models; next to it three recordings."""
    for kind in ("frames", "mirror"):
        path, card = scripted(kind)
        local_store.upload(path, card.files["offline"].key)
        local_store.write_json(f"{card.key}/card.json", card.to_json())
    rng = np.random.default_rng(0)
    (tmp_path / "field").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "field" / f"{number}.wav", rng.standard_normal(9000) * 0.1, 16000)
    return local_store


def run(store: Store, folder: Path, text: str) -> tuple[tuple[ConversionRecord, ...], tuple[RaveDistError, ...]]:
    (folder / "conversions.yaml").write_text(text)
    return convert_batch(store, read_conversions(folder / "conversions.yaml"), chunk_seconds=0.5)


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def test_the_results_are_those_of_one_command_each(store: Store, tmp_path: Path) -> None:
    records, errors = run(store, tmp_path, MANIFEST)
    made = hashes(tmp_path / "out")
    assert errors == ()
    assert [(record.converted, record.model) for record in records] == [
        *[(3, "frames@1")] * 4,
        (3, "mirror@1"),
        (1, "frames@1"),
    ]
    (tmp_path / "out").rename(tmp_path / "batch")
    store.delete_folder("conversions")
    field = str(tmp_path / "field")
    for output, models, given, parameters in (
        ("one", ["frames"], field, ConversionParameters()),
        ("seeded", ["frames"], field, ConversionParameters(seed=7)),
        ("mixed", ["frames"], field, ConversionParameters(treatment=Treatment(mix=0.5))),
        ("all", None, field, ConversionParameters()),
        ("single.wav", ["frames"], f"{field}/1.wav", ConversionParameters()),
    ):
        place = str(tmp_path / "out" / output)
        archives.convert(store, models, [given], place, parameters=parameters, chunk_seconds=0.5, workers=None)
    assert hashes(tmp_path / "out") == made
    assert {record.id for record in records} == {path.name for path in (tmp_path / "store" / "conversions").iterdir()}


def test_conversions_of_the_same_recordings_read_them_together(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()
    real: Any = vars(file_module)["open_audio"]

    @contextmanager
    def counted(path: Path) -> Iterator[Any]:
        opened[Path(path).name] += 1
        with real(path) as decoder:
            yield decoder

    monkeypatch.setattr(file_module, "open_audio", counted)
    run(store, tmp_path, MANIFEST)
    assert opened == {"0.wav": 2, "1.wav": 3, "2.wav": 2}, "with and without a treatment, and one recording alone"


def test_one_that_fails_leaves_the_others_alone(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], scripted: Callable[..., tuple[Path, ModelCard]]
) -> None:
    store.write_bytes(scripted("frames")[1].files["offline"].key, b"not what was published")
    text = (
        "conversions:\n- {models: frames, inputs: field, output: a, mix: 0.1}\n- {models: mirror, inputs: field, output: b}\n"
    )
    (tmp_path / "conversions.yaml").write_text(text)
    options = ["--store", store.uri, "--manifest", str(tmp_path / "conversions.yaml"), "--json"]
    assert command()(["convert", *options], standalone_mode=False) == 3
    document = json.loads(capsys.readouterr().out)
    assert [record["converted"] for record in document["conversions"]] == [3]
    (failed,) = document["failed"]
    assert "not the published file" in failed["what"]
    assert "conversions.yaml, line 2: " in failed["what"]
    assert len(hashes(tmp_path / "b")) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("field/1.wav", "field/absent.wav"), "line 10: .*no such file"),
        (("models: all", "models: abroad"), "line 8: .*abroad"),
        (("output: out/seeded", "output: out/one"), "line 4: .*the conversion in line 3 has the same OUTPUT"),
        (("output: out/mixed", "output: field/mixed"), "line 6: .*inside the input"),
        (("mix: 0.5", "page: absent/page.html"), "line 6: .*page's folder"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_converted(
    store: Store, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(RaveDistError, match=message) as caught:
        run(store, tmp_path, MANIFEST.replace(*change))
    assert caught.value.fix
    assert not (tmp_path / "out").exists()


def test_a_page_is_of_its_conversion(store: Store, tmp_path: Path) -> None:
    records, _ = run(store, tmp_path, MANIFEST.replace("    seed: 7", "    seed: 7\n    page: seeded.html"))
    page = (tmp_path / "seeded.html").read_text(encoding="utf-8")
    assert page.count("data:audio/mpeg") == 6
    assert all((tmp_path / "store" / "conversions" / record.id / "journal.parquet").exists() for record in records)


@pytest.mark.parametrize(("options", "named"), [(["--mix", "0.5"], "--mix"), (["a", "b"], "INPUT")])
def test_options_that_belong_into_the_manifest_are_refused(
    store: Store, tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", "--store", store.uri, "--manifest", str(tmp_path / "conversions.yaml"), *options]
    with pytest.raises(SystemExit) as ended:
        command()(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert named in said
    assert "belongs in the manifest" in said


def test_a_conversion_error_keeps_its_kind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConversionError):
        run(store, tmp_path, MANIFEST.replace("output: out/seeded", "output: out/one"))
