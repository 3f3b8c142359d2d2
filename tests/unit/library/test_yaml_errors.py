"""Errors of YAML are explained with their line, in no word of a parser, and with a fix that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rave_dist.errors import LibraryError
from rave_dist.library.manifest import load_library
from rave_dist.library.names import valid_name

Refuse = Callable[[str], LibraryError]

HEAD = "name: drums\nstore: store\ninstruments:\n"
PARSER = (
    "scanning",
    "scalar",
    "token",
    "alias",
    "anchor",
    "mapping",
    "flow",
    "block",
    "constructor",
    "unicode string",
    "[key]",
)


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    def refuse(text: str) -> LibraryError:
        path = tmp_path / "library.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LibraryError) as caught:
            load_library(path)
        assert caught.value.fix
        for word in (*PARSER, "[key]", "Value error", "Input should", "Keys should", "datetime", "True", "False", "None"):
            assert word not in str(caught.value), word
        return caught.value

    return refuse


@pytest.mark.parametrize(
    ("entry", "line", "what", "fix"),
    [
        ("\ttabla: {sources: rec}\n", 4, "tab", "spaces"),
        ("  tabla:\n\t  sources: rec\n", 5, "tab", "spaces"),
        ('  tabla: {sources: "C:\\Users\\me"}\n', 4, "backslash", "single quotes"),
        ("  tabla: {sources: [rec}\n", 4, "the bracket [", "close it"),
        ("  tabla: {sources: [rec]\n", 4, "the bracket {", "close it"),
        ('  tabla: {sources: ["rec]}\n', 4, "quotation mark", "close it"),
        ("  tabla: {sources: ['rec]}\n", 4, "quotation mark", "close it"),
        ("  tabla: {sources: [*.wav]}\n", 4, "*.wav begins with *", '"*.wav"'),
        ("  tabla: {sources: *rec}\n", 4, "*rec begins with *", '"*rec"'),
        ("  tabla: {sources: [@rec]}\n", 4, "@rec begins with @", '"@rec"'),
        ("  @tabla: {sources: rec}\n", 4, "@tabla begins with @", 'quotes: "@tabla"'),
        ("  tabla: {sources: [%rec]}\n", 4, "%rec begins with %", '"%rec"'),
        ("  tabla:\n    sources: rec\n   kompang:\n    sources: rec\n", 6, "kompang:", "same number of spaces"),
        ("  tabla: sources: rec\n", 4, "a colon too many", "quotes"),
        ("  tabla: {sources: rec}\n  kompang\n  rebana: {sources: rec}\n", 5, "has no colon", "key: value"),
        ("  tabla: {sources: rec}\n  tabla: {sources: rec}\n", 5, "'tabla' is written twice", "rename"),
        ("  tabla: !!python/object:os.system rec\n", 4, "begin with !", "quotes"),
        ("  tabla: {sources: rec, budget: {hours: 1,5}}\n", 4, "1,5 is not one number", "write 1.5"),
        ("  tabla: {sources: rec, budget: {steps: 200,000}}\n", 4, "200,000 is not one number", "write 200000"),
        ("  tabla: {sources: rec, budget: {steps: 200.000}}\n", 4, "may be 200 or 200000", "write 200000 or 200"),
        ("  tabla: {sources: rec, budget: {hours: 1:30}}\n", 4, "1:30 is not one number", "1.5"),
        ("  tabla: {sources: rec, seed: 010}\n", 4, "begins with 0", "write 10"),
        ("  tabla: {sources: [rec] seed: 1}\n", 4, "no comma before seed: 1}", "commas"),
        ("  tabla: {sources: ['it's']}\n", 4, "no comma before s']}", "double quotes"),
        ("  tabla: {credit: {place: Kuala Lumpur: studio}}\n", 4, "a colon too many", "in quotes"),
        ("  tabla:\n    sources: [rec #1]\n", 5, "a # ends the line", "put text with a # in quotes"),
        ("  tabla: {sources: rec}}\n", 4, "a bracket } too many", "remove it"),
        ("  tabla: {sources: rec}\n---\nname: x\n", 5, "begins another text", "remove this line"),
        ("  &tabla: {sources: rec}\n", 4, "no name before a colon", "in quotes if it begins with &"),
        ("  [tabla]: {sources: rec}\n", 4, "no name before a colon", "brackets"),
        ("\u00a0 tabla: {sources: rec}\n", 4, "a special space", "ordinary spaces"),
        ("  tabla: " + "[" * 5000 + "\n", 1, "nested too deeply", "close"),
        ("  tabla\n    sources: rec\n", 4, "tabla has no colon", "key: value"),
        ("  tabla:{}\n  kompang: {sources: rec}\n", 4, "tabla:{} has no colon with a space", "key: value"),
    ],
)
def test_the_line_the_problem_and_the_fix(refuse: Refuse, entry: str, line: int, what: str, fix: str) -> None:
    error = refuse(HEAD + entry)
    assert error.where.endswith(f"library.yaml, line {line}")
    assert what in error.what
    assert fix in error.fix


@pytest.mark.parametrize("name", ["1974", "808", "no", "off", "1.5", "2020-01-01", "~", "null", "1e3", "0x10"])
def test_a_name_that_yaml_reads_as_something_else_works_in_quotes(refuse: Refuse, tmp_path: Path, name: str) -> None:
    path = tmp_path / "library.yaml"
    path.write_text(f'{HEAD}  "{name.replace("~", "tilde")}": {{sources: rec}}\n')
    assert load_library(path).instruments == (name.replace("~", "tilde"),)
    if name == "1e3":  # a string for YAML
        return
    error = refuse(f"{HEAD}  {name}: {{sources: rec}}\n")
    assert error.where.endswith("line 4")
    assert f"the name {name} " in error.what
    assert error.fix == f'put it in quotes: "{name}":'
    library = refuse(f"name: {name}\nstore: store\ninstruments:\n  a: {{sources: rec}}\n")
    assert name in library.what
    assert "Traceback" not in library.what


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("cajón", "write cajon"),
        ("my drum", "write my-drum"),
        ("太鼓", "Latin letters"),
        ("ребана", "Latin letters"),
        ("x" * 64, "x" * 63),
    ],
)
def test_names_in_other_letters_get_the_reason_and_a_suggestion(refuse: Refuse, name: str, fix: str) -> None:
    error = refuse(f"{HEAD}  {name}: {{sources: rec}}\n")
    assert f"'instruments.{name}'" in error.what
    assert fix in error.fix
    assert valid_name(name) == "" or valid_name(name) in error.fix


@pytest.mark.parametrize(
    ("path", "what", "fix"),
    [
        ("C:\\Users\\me", "a path of Windows", "/mnt/c/Users/me"),
        ("d:/takes", "a path of Windows", "/mnt/d/takes"),
        ('"C:\\rec"', "control character", "single quotes"),
        ("$HOME/takes", "variables", "~/"),
        ("${HOME}/takes", "variables", "~/"),
        ("~", "nothing in YAML", "for example"),
    ],
)
@pytest.mark.parametrize("key", ["store", "sources"])
def test_paths_that_mean_something_elsewhere(refuse: Refuse, tmp_path: Path, key: str, path: str, what: str, fix: str) -> None:
    store, sources = (path, "rec") if key == "store" else ("store", path)
    error = refuse(f"name: drums\nstore: {store}\ninstruments:\n  tabla:\n    sources: {sources}\n")
    assert error.where.endswith(f"line {2 if key == 'store' else 5}")
    assert what in error.what
    assert fix in error.fix
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["library.yaml"]


def test_folders_of_windows_disks_are_paths(tmp_path: Path) -> None:
    path = tmp_path / "library.yaml"
    path.write_text(f"{HEAD}  tabla: {{sources: [$RECYCLE.BIN/a.wav, 'take:1.wav', '~/takes']}}\n")
    assert len(load_library(path).sources("tabla")) == 3


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        (f"{HEAD}  tabla: {{source: rec}}\n", 4, "unknown key 'instruments.tabla.source'", "did you mean 'sources'?"),
        ("name: drums\nstore: store\ninstrument:\n  tabla: {sources: rec}\n", 3, "unknown key 'instrument'", "'instruments'?"),
        (f"{HEAD}tabla:\n  sources: rec\n", 4, "'tabla': must be indented below 'instruments'", "two more spaces"),
        (f"{HEAD}  tabla:\n  sources: rec\n", 5, "'instruments.sources': must be indented below 'instruments.tabla'", "spaces"),
        (f"{HEAD}  tabla: {{sources: [take: 1]}}\n", 4, "must be a string", 'put it in quotes: "take: 1"'),
    ],
)
def test_one_mistake_is_told_once(refuse: Refuse, text: str, line: int, what: str, fix: str) -> None:
    error = refuse(text)
    assert error.where.endswith(f"library.yaml, line {line}")
    assert what in error.what
    assert ";" not in error.what
    assert fix in error.fix
    assert "; " not in error.fix


@pytest.mark.parametrize(
    ("path", "what", "fix"),
    [
        ("s3:/bucket/x", "one / after its colon", "write s3://bucket/x"),
        ("'\\\\nas\\share'", "a network path of Windows", "mount the share"),
        ("'%USERPROFILE%\\rec'", "variables", "write the path itself"),
        ("gs://bucket/x", "gs:// addresses are not supported", "s3://bucket/prefix"),
    ],
)
@pytest.mark.parametrize("key", ["store", "sources"])
def test_addresses_that_are_none_are_refused_with_their_line(refuse: Refuse, key: str, path: str, what: str, fix: str) -> None:
    store, sources = (path, "rec") if key == "store" else ("store", path)
    error = refuse(f"name: drums\nstore: {store}\ninstruments:\n  tabla:\n    sources: {sources}\n")
    assert error.where.endswith(f"line {2 if key == 'store' else 5}")
    assert what in error.what
    assert fix in error.fix


def test_a_home_folder_of_nobody_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "library.yaml"
    path.write_text(f"{HEAD}  tabla: {{sources: '~nobody-here/rec'}}\n")
    assert load_library(path).sources("tabla") == (str(tmp_path / "~nobody-here" / "rec"),)


def test_several_problems_are_told_with_their_lines(refuse: Refuse) -> None:
    error = refuse(f"{HEAD}  tabla: {{sources: rec, channels: 6}}\n  kompang: {{sources: rec, chanels: 1}}\n")
    assert "line 4: 'instruments.tabla.channels' is 6" in error.what
    assert "line 5: unknown key 'instruments.kompang.chanels'" in error.what
    assert "did you mean 'channels'?" in error.fix


def test_a_part_of_a_manifest_may_be_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "library.yaml"
    path.write_text(f"{HEAD}  tabla: &small {{sources: rec, config: v2_tiny}}\n  kompang: {{<<: *small, sources: other}}\n")
    library = load_library(path)
    assert library.settings("kompang").config == ("v2_tiny",)
    assert library.sources("kompang") == (str(tmp_path / "other"),)


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 5), ("utf-16", 1)])
def test_other_encodings_are_named_with_their_line(tmp_path: Path, encoding: str, line: int) -> None:
    path = tmp_path / "library.yaml"
    path.write_bytes(f"{HEAD}  tabla:\n    credit: {{performer: José}}\n".encode(encoding))
    with pytest.raises(LibraryError) as caught:
        load_library(path)
    assert caught.value.where.endswith(f"line {line}")
    assert "UTF-8" in caught.value.fix


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "library.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEAD}  tabla: {{sources: rec}}\n".encode())
    assert load_library(path).name == "drums"
