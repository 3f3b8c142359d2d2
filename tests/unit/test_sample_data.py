import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.errors import LibraryError, WrongPackageError
from rave_dist.library.manifest import load_library
from rave_dist.sample_data import SAMPLE_LIBRARIES, DebianPackage, Generated, fetch, load_source, prepare

MANIFESTS = sorted(path for path in SAMPLE_LIBRARIES.glob("*.yaml") if not path.name.endswith(".source.yaml"))


def one_drum(folder: Path, *, seed: int = 1) -> Path:
    """A sample library of one generated instrument."""
    folder.mkdir()
    manifest = folder / "tiny.yaml"
    manifest.write_text("name: tiny\nstore: ./store\ninstruments: {drum: {sources: recordings/tiny/drum}}\n")
    (folder / "tiny.source.yaml").write_text(
        f"{{kind: generated, seed: {seed}, sample_rate: 16000, licence: CC0-1.0, instruments: "
        "{drum: {model: membrane, frequency: 90, num_files: 2, seconds: 2}}}"
    )
    return manifest


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_that_come_with_it_are_valid(manifest: Path) -> None:
    library = load_library(manifest)
    assert library.name == manifest.stem
    assert len(library.instruments) >= 4
    source = load_source(manifest.with_name(f"{manifest.stem}.source.yaml"))
    for name in library.instruments:
        settings = library.settings(name)
        assert settings.config == ("v2_tiny",)
        assert settings.credit is not None
        assert settings.credit["licence"] == source.licence
        assert settings.credit["performer"]
        for pattern in library.sources(name):
            assert f"/recordings/{manifest.stem}/" in pattern
    if isinstance(source, Generated):
        assert set(source.instruments) == set(library.instruments)


def test_both_kinds_of_library_come_with_it() -> None:
    kinds = {type(load_source(path.with_name(f"{path.stem}.source.yaml"))) for path in MANIFESTS}
    assert kinds == {DebianPackage, Generated}


def test_generated_recordings_are_the_same_every_time_and_sane(tmp_path: Path) -> None:
    places = [prepare(one_drum(tmp_path / f"source-{i}"), tmp_path / f"library-{i}") for i in (1, 2)]
    other = prepare(one_drum(tmp_path / "source-3", seed=2), tmp_path / "library-3")
    files = [sorted((place.parent / "recordings/tiny/drum").glob("*.flac")) for place in (*places, other)]
    assert [len(f) for f in files] == [2, 2, 2]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    assert [f.read_bytes() for f in files[0]] != [f.read_bytes() for f in files[2]]
    assert files[0][0].read_bytes() != files[0][1].read_bytes()
    for path in files[0]:
        sound, rate = soundfile.read(path)
        assert (rate, len(sound)) == (16000, 32000)
        assert 0.75 < np.abs(sound).max() < 0.85
        assert abs(sound.mean()) < 0.01
    library = load_library(places[0])
    assert Path(library.sources("drum")[0]) == places[0].parent.absolute() / "recordings/tiny/drum"


def test_notes_are_where_the_list_says(tmp_path: Path) -> None:
    place = prepare(one_drum(tmp_path / "source"), tmp_path / "library")
    folder = place.parent / "recordings/tiny/drum"
    for entry in json.loads((folder / "notes.json").read_text()):
        sound, rate = soundfile.read(folder / entry["file"])
        first = round(entry["notes"][0]["start"] * rate)
        assert np.abs(sound[: first - 8]).max() < 0.01
        assert np.abs(sound[first : first + rate // 20]).max() > 0.1


def test_preparing_again_keeps_recordings_and_a_changed_manifest(tmp_path: Path) -> None:
    manifest = one_drum(tmp_path / "source")
    said: list[str] = []
    place = prepare(manifest, tmp_path / "library", tell=said.append)
    place.write_text(place.read_text() + "# mine\n")
    recording = next((place.parent / "recordings/tiny/drum").glob("*.flac"))
    before = recording.stat().st_mtime_ns
    prepare(manifest, tmp_path / "library", tell=said.append)
    assert len(said) == 1
    assert recording.stat().st_mtime_ns == before
    assert place.read_text().endswith("# mine\n")
    manifest.with_name("tiny.source.yaml").write_text(
        manifest.with_name("tiny.source.yaml").read_text().replace("num_files: 2", "num_files: 1")
    )
    prepare(manifest, tmp_path / "library", tell=said.append)
    assert len(list(recording.parent.glob("*.flac"))) == 1
    assert sorted(p.name for p in place.parent.iterdir()) == ["recordings", "tiny.yaml"]


@pytest.mark.parametrize("text", ["kind: stolen", "- a list", "{kind: generated, seed: 1", ""])
def test_a_wrong_description_is_named(tmp_path: Path, text: str) -> None:
    manifest = one_drum(tmp_path / "source")
    manifest.with_name("tiny.source.yaml").write_text(text)
    with pytest.raises(LibraryError, match="tiny") as caught:
        prepare(manifest, tmp_path / "library")
    assert "tiny.source.yaml" in str(caught.value)


def package(folder: Path, **changes: str) -> DebianPackage:
    """A Debian package with one recording, made here, and a fake apt-get that serves it."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: sounds\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    )
    (tree / "usr/share/sounds").mkdir(parents=True)
    soundfile.write(tree / "usr/share/sounds/one.flac", np.zeros(100), 8000)
    (tree / "usr/share/copyright").write_text("CC0")
    subprocess.run(["dpkg-deb", "-b", str(tree), str(folder / "sounds_1_all.deb")], check=True, capture_output=True)
    tools = folder / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text(
        f'#!/bin/sh\nfor word; do :; done\n[ "$word" = sounds=1 ] && cp {folder}/sounds_1_all.deb . && exit\n'
        'echo "E: Version not found: $word" >&2; exit 100\n'
    )
    (tools / "apt-get").chmod(0o755)
    from rave_dist.identity import hash_file

    values = {
        "kind": "debian",
        "package": "sounds",
        "version": "1",
        "sha256": hash_file(folder / "sounds_1_all.deb"),
        "folder": "usr/share/sounds",
        "copyright": "usr/share/copyright",
        "licence": "CC0-1.0",
    }
    return DebianPackage.model_validate(values | changes)


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is only on Debian's kin")


@needs_dpkg
def test_a_package_is_fetched_checked_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = package(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    fetch(source, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["COPYRIGHT", "one.flac"]


@needs_dpkg
def test_another_package_than_the_one_described_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = package(tmp_path, sha256="0" * 64)
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    with pytest.raises(WrongPackageError, match="sha256"):
        fetch(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_dpkg
def test_a_version_out_of_reach_is_named_with_apts_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = package(tmp_path, version="2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    with pytest.raises(LibraryError, match="Version not found"):
        fetch(source, tmp_path / "out")


def test_without_apt_the_generated_library_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source(SAMPLE_LIBRARIES / "sonic-pi.source.yaml")
    assert isinstance(source, DebianPackage)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LibraryError) as caught:
        fetch(source, tmp_path / "out")
    assert "rave-dist demo generated" in caught.value.fix
