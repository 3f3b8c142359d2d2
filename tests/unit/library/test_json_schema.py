"""The JSON Schema accepts what the loader accepts, and refuses what it refuses, as far as JSON Schema can say it."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rave_dist.errors import LibraryError
from rave_dist.library import json_schema
from rave_dist.library.json_schema import manifest_schema
from rave_dist.library.manifest import load_library

README = Path(__file__).resolve().parents[3] / "README.md"
SMALL = "{name: drums, store: store, instruments: {tabla: {sources: recordings%s}}}"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _is_loaded(text: str, folder: Path) -> bool:
    path = folder / "library.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_library(path)
    except LibraryError:
        return False
    return True


def test_the_command_prints_it() -> None:
    done = subprocess.run([sys.executable, "-m", "rave_dist", "schema"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == manifest_schema()
    assert done.stderr == ""


def test_the_readmes_example_is_accepted(validator: jsonschema.Draft202012Validator) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    validator.validate(yaml.safe_load(example))


RIGHT = [
    *("config: v2", "config: [v2, causal]", "batch: 4", "batch: auto", "base: kompang", "base: {model: kompang@1a}"),
    *("base: {stock: runs/drums, resume: true}", "augment: low-data", "augment: gain", "augment: [gain, mangle]"),
    *(
        "augment: {gain: 0.3}",
        "augment: []",
        "compute: bf16",
        "compute: [bf16, fused-adam]",
        "budget: {hours: 0.5}",
        "budget: {hours: 4, steps: 5}",
    ),
    *("budget: {until: {patience: 5}}", "budget: {steps: 300, until: {patience: 5, improvement: 0.1}}", "checkpoint: {}"),
    *("checkpoint: {minutes: 1, keep: 5}", "recover: {}", "override: {CAPACITY: 48, x: [1, '@y']}", "credit: {place: Melaka}"),
    *("seed: 0", "window: 65536", "sample_rate: 48000, channels: 2"),
]
WRONG = [
    *("config: []", "config: ''", "config: 4", "configs: v2", "batch: 0", "batch: 4097", "batch: automatic", "batch: 1.5"),
    *("base: {}", "base: {model: x, stock: y}", "base: ''", "base: {train: false}", "augment: gian", "augment: [low-data]"),
    *("augment: {gain: 2}", "augment: {gian: 0.5}", "augment: 5", "compute: fp61", "compute: {bf16: true}", "budget: {}"),
    *("budget: 4", "budget: {hours: 0}", "budget: {hours: yes}", "budget: {steps: 1}"),
    *("budget: {until: {}}", "budget: {until: {patience: 0}}", "checkpoint: {minutes: 1, steps: 5}", "checkpoint: {keep: 0}"),
    *("recover: {rate: 1}", "recover: yes", "override: [CAPACITY]", "credit: {performer: 5}", "credit: Ada", "seed: -1"),
    *("window: long", "sample_rate: fast", "sample_rate: 44", "sample_rate: '48000'", "channels: 6", "channels: true"),
]


@pytest.mark.parametrize(("written", "meant"), [(w, True) for w in RIGHT] + [(w, False) for w in WRONG])
def test_it_agrees_with_the_loader(
    validator: jsonschema.Draft202012Validator, tmp_path: Path, written: str, meant: bool
) -> None:
    text = SMALL % f", {written}"
    assert _is_loaded(text, tmp_path) is meant
    assert validator.is_valid(yaml.safe_load(text)) is meant


@pytest.mark.parametrize(
    "text",
    [
        "{name: drums, store: store}",
        "{name: drums, store: store, instruments: {}}",
        "{name: ../x, store: store, instruments: {tabla: {sources: x}}}",
        "{name: drums, store: '', instruments: {tabla: {sources: x}}}",
        "{name: drums, store: store, instruments: {'a b': {sources: x}}}",
        "{name: drums, store: store, instruments: {tabla: {}}}",
        "{name: drums, store: store, instruments: {tabla: {sources: x}}, on_end: notify me}",
        "{name: drums, store: store, instruments: {tabla: {sources: x}}, on_end: []}",
        "{name: drums, store: store, instruments: {tabla: {sources: []}}}",
        "{name: drums, stroe: store, store: store, instruments: {tabla: {sources: x}}}",
        "{name: drums, store: store, defaults: {sources: x}, instruments: {tabla: {sources: x}}}",
        "[a, b]",
    ],
)
def test_what_is_no_manifest_is_refused_by_both(validator: jsonschema.Draft202012Validator, tmp_path: Path, text: str) -> None:
    assert not _is_loaded(text, tmp_path)
    assert not validator.is_valid(yaml.safe_load(text))


def test_a_joint_base_is_written_in_the_defaults(validator: jsonschema.Draft202012Validator, tmp_path: Path) -> None:
    text = "{name: drums, store: s, defaults: {base: {train: true, budget: {hours: 1}}}, instruments: {tabla: {sources: x}}}"
    assert _is_loaded(text, tmp_path)
    validator.validate(yaml.safe_load(text))


def test_every_object_is_closed_and_every_key_described() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            if "properties" in value and "additionalProperties" in value:
                assert value["additionalProperties"] is False
                assert all(key.get("description") for key in value["properties"].values())
            for item in value.values():
                walk(item)

    schema = manifest_schema()
    walk(schema)
    assert schema["title"]
    assert schema["description"]
    assert "$id" not in schema


def test_the_examples_hold() -> None:
    done = doctest.testmod(json_schema)
    assert done.attempted
    assert not done.failed
