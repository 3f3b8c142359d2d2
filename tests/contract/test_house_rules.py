"""Rules of the house that a machine can hold: sizes, names, handlers, errors, and nothing of one machine in the source."""

from __future__ import annotations

import ast
import builtins
import inspect
import pickle
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rave_dist import errors
from rave_dist.errors import RaveDistError

MAX_LINES = 400

ERRORS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, RaveDistError)]


def test_modules_are_small(modules: tuple[Any, ...]) -> None:
    lengths = {module.name: len(module.path.read_text(encoding="utf-8").splitlines()) for module in modules}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_drawer_for_everything(modules: tuple[Any, ...]) -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert [module.name for module in modules if module.name.rpartition(".")[2] in drawers] == []


def test_every_module_says_what_it_is(modules: tuple[Any, ...]) -> None:
    assert [module.name for module in modules if not ast.get_docstring(module.tree)] == []


def test_handlers_name_what_they_catch(modules: tuple[Any, ...]) -> None:
    """One that cleans up and passes the same error on catches nothing."""
    broad = {"Exception", "BaseException"}
    culprits = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if not passes_on and any(kind is None or ast.unparse(kind) in broad for kind in kinds):
                    culprits.append(f"{module.name}:{node.lineno}")
    assert culprits == []


def test_nothing_is_left_for_later(modules: tuple[Any, ...]) -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [m.name for m in modules if marks.search(m.path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_errors_cross_processes_with_all_they_say(kind: type[RaveDistError]) -> None:
    error = kind("what", where="where", fix="fix")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert (twin.what, twin.where, twin.fix, str(twin)) == ("what", "where", "fix", str(error))


def test_categories_are_standard_errors_too() -> None:
    for kind in ERRORS:
        if kind is not RaveDistError:
            standard = [base for base in kind.__mro__ if base.__module__ == builtins.__name__]
            assert set(standard) - {Exception, BaseException, object}, kind


def test_every_error_for_people_is_in_the_tree(modules: tuple[Any, ...]) -> None:
    names = {kind.__name__ for kind in ERRORS}
    strays = []
    for module in modules:
        if module.name != "rave_dist.errors":
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef) and names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}:
                    strays.append(f"{module.name}.{node.name}")
    assert strays == []


def test_test_folders_are_no_packages(root: Path) -> None:
    assert list((root / "tests").rglob("__init__.py")) == []


def _tracked(root: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [root / name for name in listed.stdout.decode().split("\0") if name]


def test_no_path_of_one_machine_is_in_the_source(root: Path) -> None:
    home = re.compile(r"(?<![\w.])/(work|root|home)/[a-z]")
    allowed = re.compile(r"/home/(someone|ubuntu|ray|you)\b")
    culprits = []
    for path in _tracked(root):
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ""}:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if home.search(allowed.sub("", line)) and path != Path(__file__):
                    culprits.append(f"{path.relative_to(root)}:{number}")
    assert culprits == []


def test_names_of_stored_files_stand_in_one_place(modules: tuple[Any, ...]) -> None:
    """`rave_dist.records.folders` names the files of runs, models, datasets and bases."""
    names = {"weights.pt", "weights_phase_1.pt", "spec.json", "config.gin", "result.json", "metrics.json", "optimizers.pt"}
    names |= {"base.json", "export.json", "card.json", "manifest.json", "samples.json", "not_finite.json"}
    culprits = []
    for module in modules:
        if module.name.startswith("rave_dist") and module.name != "rave_dist.records.folders":
            for node in ast.walk(module.tree):
                text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                if text.rpartition("/")[2] in names and not (
                    module.name.startswith("rave_dist.rave.") and text == "config.gin"
                ):
                    culprits.append(f"{module.name}:{node.lineno} {text}")
    assert culprits == []
