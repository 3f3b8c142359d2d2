"""Documents name only what exists: commands and their options, make targets, jobs, manifest keys, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from rave_dist.cli import app
from rave_dist.library.manifest import load_library
from rave_dist.library.table import manifest_table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def _code(path: Path) -> str:
    """What stands in code blocks and between backticks; a line of it each."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*blocks, *spans])


def _without_comment(line: str) -> str:
    return re.split(r"\s#", line)[0]


@document
def test_commands_and_their_options_exist(path: Path) -> None:
    for line in _code(path).splitlines():
        for name, rest in re.findall(r"\brave-dist ([a-z][\w-]*)([^|]*)", _without_comment(line)):
            assert name in COMMANDS, f"there is no rave-dist {name}"
            known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) <= known | {"--help"}, line


def test_every_command_is_in_the_readme() -> None:
    code = _code(ROOT / "README.md")
    assert [name for name in COMMANDS if not re.search(rf"rave-dist {name}\b", code)] == []


@document
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", _code(path))) <= targets


@document
def test_jobs_and_benchmarks_exist(path: Path) -> None:
    for name in re.findall(r"\bray_jobs\.([a-z_]+)", _code(path)):
        assert (ROOT / "ray_jobs" / f"{name}.py").exists(), name
    for name in re.findall(r"\bbenchmarks/([a-z_]+\.py)", _code(path)):
        assert (ROOT / "benchmarks" / name).exists(), name


@document
def test_named_source_files_exist(path: Path) -> None:
    for name in re.findall(r"\b(?:rave_dist|tests|ray_jobs)/[\w/.]*\w", _code(path)):
        assert (ROOT / name).exists(), name


@document
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_readmes_manifest_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "library.yaml").write_text(example, encoding="utf-8")
    library = load_library(tmp_path / "library.yaml")
    assert all(library.training_spec(name, dataset="x").run_id for name in library.instruments)


def test_the_readmes_table_of_keys_is_the_generated_one() -> None:
    assert manifest_table() in (ROOT / "README.md").read_text(encoding="utf-8"), "run make docs"
