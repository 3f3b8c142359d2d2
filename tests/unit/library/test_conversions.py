"""A manifest of conversions: every mistake is named with its line before anything is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rave_dist.cli.main import command
from rave_dist.errors import LibraryError
from rave_dist.library.conversions import ConversionManifest, ConversionSettings, read_conversions
from rave_dist.records import Controls, ConversionParameters, Treatment

GOOD = """\
defaults:
  models: all
  format: flac
conversions:
  - inputs: field/dawn
    output: converted/dawn
    mix: 0.8
  - models: [rebana, bells@1]
    inputs: [field/dusk, "s3://archive/dusk"]
    output: ~/dusk.wav
    format: wav
    match_loudness: file
    page: dusk.html
    noise: 0.5
    latent: 3=bias:-0.1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "conversions.yaml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_all_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    first, second = read_conversions(written(tmp_path, GOOD))
    assert (first.models, first.inputs, first.output) == (None, (f"{tmp_path}/field/dawn",), f"{tmp_path}/converted/dawn")
    assert first.parameters == ConversionParameters(format="flac", treatment=Treatment(mix=0.8))
    assert (second.models, second.inputs) == (("rebana", "bells@1"), (f"{tmp_path}/field/dusk", "s3://archive/dusk"))
    assert (second.output, second.page) == (os.path.expanduser("~/dusk.wav"), f"{tmp_path}/dusk.html")
    controls = Controls(noise=0.5, latents={3: (1.0, -0.1)})
    treatment = Treatment(match_loudness="file")
    assert second.parameters == ConversionParameters(format="wav", treatment=treatment, controls=controls)
    assert (first.where, second.where) == (f"{tmp_path}/conversions.yaml, line 5", f"{tmp_path}/conversions.yaml, line 8")


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "fix"),
    [
        (
            "    latent: 3=bias:-0.1",
            "    latent: 3=bais:-0.1",
            "line 15",
            "is not a change of a latent",
            "3=scale:1.2,bias:-0.1",
        ),
        ("    mix: 0.8", "    mxi: 0.8", "line 7", "unknown key 'conversions.0.mxi'", "did you mean 'mix'?"),
        ("  format: flac", "  fromat: flac", "line 3", "unknown key 'defaults.fromat'", "did you mean 'format'?"),
        ("    mix: 0.8", "    mix: 1.5", "line 7", "'conversions.0.mix' is 1.5: must be 1 or less", "for example mix: 0.8"),
        ("    format: wav", "    format: mp3", "line 11", "must be 'keep', 'flac' or 'wav'", "for example format: flac"),
        ("    match_loudness: file", "    match_loudness: loud", "line 12", "must be 'file' or 'call'", "match_loudness: file"),
        ("    output: ~/dusk.wav\n", "", "line 8", "'conversions.1.output' is missing", "add 'output', for example output:"),
        ("  models: all\n", "", "line 4", "'conversions.0.models' is missing", "for example models: rebana"),
        ("    output: converted/dawn", "    output:", "line 6", "'conversions.0.output' is missing", "add 'output'"),
        ("conversions:", "conversion:", "conversions.yaml", "has the key conversions", "write `conversions:`"),
        ("    mix: 0.8", "\tmix: 0.8", "line 7", "tab", "indent with spaces"),
        ("    mix: 0.8", "    mix: 0.8\n    mix: 0.9", "line 8", "mix", ""),
    ],
)
def test_a_mistake_is_named_with_its_line_and_a_fix(
    tmp_path: Path, old: str, new: str, where: str, what: str, fix: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(LibraryError) as caught:
        read_conversions(written(tmp_path, GOOD.replace(old, new)))
    error = caught.value
    assert where in error.where
    assert what in error.what
    assert fix in error.fix
    assert error.fix


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("mix: 0.8", "mix: 8").replace("format: wav", "formt: wav")
    with pytest.raises(LibraryError, match=r"line 7: .*line 11: "):
        read_conversions(written(tmp_path, text))


@pytest.mark.parametrize("text", ["conversions: []", "", "- models: rebana", "conversions: rebana"])
def test_a_file_without_conversions_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LibraryError) as caught:
        read_conversions(written(tmp_path, text))
    assert caught.value.fix


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="there is no such file"):
        read_conversions(tmp_path / "absent.yaml")


def test_the_keys_are_the_options_of_the_command() -> None:
    options = {parameter.name for parameter in command().commands["convert"].params}
    of_the_command = {"store", "workers", "chunk_seconds", "trust", "watch", "manifest", "as_json", "debug"}
    renamed = {"paths": "inputs", "file_format": "format", "model": "models"}
    assert {renamed.get(str(name), name) for name in options - of_the_command} | {"output"} == set(
        ConversionSettings.model_fields
    )


@pytest.mark.parametrize("name", ConversionSettings.model_fields)
def test_every_key_has_a_description_and_valid_examples(name: str) -> None:
    field = ConversionSettings.model_fields[name]
    assert field.description
    assert field.examples
    for example in field.examples:
        assert (
            getattr(ConversionManifest.model_validate({"defaults": {name: example}, "conversions": [{}]}).defaults, name)
            is not None
        )
