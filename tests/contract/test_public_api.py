"""What ``import rave_dist`` promises: names, types, defaults, cheap import, silence, documented and with examples."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import public_examples as examples
import pytest
import typer

import rave_dist as rd
from rave_dist import errors
from rave_dist.cli import app

FUNCTIONS = [name for name in rd.__all__ if inspect.isfunction(getattr(rd, name))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_public_names() -> None:
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.RaveDistError)}
    functions = {"check", "ingest", "train", "publish", "run", "status", "report", "list_models", "find_model", "convert"}
    functions |= {"verify", "prune"}
    assert set(rd.__all__) == kinds | functions | {"Library", "Store", "Converter"}
    assert set(FUNCTIONS) == functions
    assert all(getattr(rd, name) is not None for name in rd.__all__)
    assert set(rd.__all__) <= set(dir(rd))
    with pytest.raises(AttributeError, match="trian"):
        rd.trian  # type: ignore[attr-defined]  # noqa: B018


def test_no_public_name_is_a_submodule() -> None:
    """Importing ``rave_dist.check`` would put the module in the place of the function ``rave_dist.check``."""
    modules = {module.name for module in pkgutil.iter_modules(rd.__path__)}
    assert not modules & set(rd.__all__)


def test_names_for_type_checkers_are_the_names_at_run_time(modules: tuple[Any, ...]) -> None:
    """The imports under TYPE_CHECKING name exactly ``__all__``, from the modules that `__getattr__` reads."""
    (package,) = (module for module in modules if module.name == "rave_dist")
    known = frozenset(module.name for module in modules)
    imported = {found.imported for found in package.imports(known) if not found.at_top}
    assert {"rave_dist.api", "rave_dist.errors", "rave_dist.views"} <= imported
    for name in rd.__all__:
        assert getattr(rd, name).__module__ in imported, name


PROBE = """
import sys, time
began = time.process_time()
import rave_dist
seconds = time.process_time() - began
heavy = {"torch", "ray", "numpy", "pyarrow", "pydantic", "rich", "boto3", "matplotlib"} & set(sys.modules)
print(seconds, sorted(heavy))
"""


def test_importing_the_package_costs_nothing(tmp_path: Path) -> None:
    """At most 0.3 CPU-seconds are allowed; a thirtieth of that is used, because nothing is loaded before it is used."""
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.strip().split(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 0.3


def test_functions_load_neither_torch_nor_ray_before_they_are_called(tmp_path: Path) -> None:
    program = "import sys, rave_dist as rd; rd.check, rd.Library, rd.Store; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "matplotlib", "boto3", "scipy", "rich"} & set(done.stdout.split())


def test_python_and_the_command_line_have_the_same_defaults() -> None:
    options = {parameter.name: parameter.default for parameter in COMMANDS["convert"].params}
    signature = inspect.signature(rd.convert).parameters
    renamed = {"format": "file_format"}
    shared = [name for name in signature if renamed.get(name, name) in options and name not in ("store", "model", "named")]
    samples = {"sample_rate", "channels", "format", "seed", "latent_noise", "salvage", "chunk_seconds"}
    treatment = {"denoise", "gate", "skip_silence", "mix", "match_loudness", "only_above"}
    controls = {"noise", "temperature"}
    assert set(shared) == samples | controls | treatment | {"workers", "page"}
    assert {name: signature[name].default for name in shared} == {n: options[renamed.get(n, n)] for n in shared}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_silent_unless_asked(name: str) -> None:
    signature = inspect.signature(getattr(rd, name))
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    command = COMMANDS.get(name)
    if "progress" in signature.parameters:
        assert signature.parameters["progress"].default is None
    if command is not None and "only" in {parameter.name for parameter in command.params}:
        assert "only" in signature.parameters


@pytest.mark.parametrize("name", [name for name, _ in examples.documented()])
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    value = dict(examples.documented())[name]
    text = examples.docstring(value)
    summary = text.partition("\n")[0]
    assert summary.endswith("."), "one summary line"
    parameters = [] if isinstance(value, property) else inspect.signature(getattr(value, "__func__", value)).parameters
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    assert examples.examples(name), "an example that runs"
    for parameter in parameters:
        if parameter not in ("self", "cls"):
            assert f"{parameter}:" in text, f"{parameter} is described"


def test_the_reference_is_what_the_docstrings_say(root: Path) -> None:
    program = [sys.executable, str(root / "docs" / "generate_api.py"), "--print"]
    made = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True).stdout
    assert (root / "docs" / "api.md").read_text(encoding="utf-8") == made, "run make docs"
