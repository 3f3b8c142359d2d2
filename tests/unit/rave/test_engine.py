"""The engine that is named is the one that is installed, under the licence that its licence file has."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

from rave_dist.rave import engine
from rave_dist.rave.engine import installed_engine
from rave_dist.records import Engine
from rave_dist.terminal import console


def test_name_version_and_licence_are_those_of_the_installed_package() -> None:
    found = installed_engine()
    distribution = metadata.distribution(found.name)
    assert found.version == distribution.version == engine.VERSION
    licences = [file for file in distribution.files or [] if file.name == "LICENSE"]
    text = Path(distribution.locate_file(licences[0])).read_text(encoding="utf-8")
    assert text.startswith("Creative Commons Attribution-NonCommercial 4.0")
    assert found.licence == "CC BY-NC 4.0"


def test_the_terms_say_what_is_open_and_what_is_not() -> None:
    terms = installed_engine().terms
    for word in ("Apache-2.0", "acids-rave 2.3.1", "CC BY-NC 4.0", "non-commercial", "not legal advice"):
        assert word in terms
    assert installed_engine().to_json()["terms"] == terms


def test_the_engine_of_a_card_is_read_back_as_it_was_written() -> None:
    old = Engine(name="acids-rave", version="2.2.0", licence="MIT")
    assert Engine.model_validate(old.to_json()) == old
    assert "acids-rave 2.2.0" in old.terms


def test_terms_are_printed_once_for_each_engine(capsys) -> None:
    engines = [installed_engine(), installed_engine(), Engine(name="acids-rave", version="2.2.0", licence="MIT")]
    console.show_engines(engines)
    printed = capsys.readouterr().err
    assert printed.count("acids-rave 2.3.1") == 1
    assert printed.count("acids-rave 2.2.0") == 1


def test_naming_the_engine_imports_nothing_of_it() -> None:
    tree = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "importlib", "rave_dist.records"}
