"""What the contract tests share: the source tree, parsed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module: by whom, where, and whether importing the importer imports it (it stands in no function)."""

    importer: str
    imported: str
    line: int
    at_top: bool


@dataclass(frozen=True)
class Module:
    """One Python file of the project."""

    name: str
    path: Path
    tree: ast.Module

    def imports(self, known: frozenset[str]) -> Iterator[Import]:
        """All imports, those inside functions and for type checkers too; ``from a import b`` is ``a.b`` if that is a module."""
        inside: set[ast.AST] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inside |= set(ast.walk(node))
            elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                inside |= {inner for statement in node.body for inner in ast.walk(statement)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = ".".join(filter(None, (package if node.level else "", node.module or "")))
                names = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
            else:
                continue
            for name in dict.fromkeys(names):
                yield Import(self.name, name, node.lineno, node not in inside)


def _module(path: Path) -> Module:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def modules() -> tuple[Module, ...]:
    """All modules of the package and of its job entry points."""
    return tuple(_module(path) for folder in ("rave_dist", "ray_jobs") for path in sorted((ROOT / folder).rglob("*.py")))


@pytest.fixture(scope="session")
def imports(modules: tuple[Module, ...]) -> tuple[Import, ...]:
    """All imports in all modules."""
    known = frozenset(module.name for module in modules)
    return tuple(found for module in modules for found in module.imports(known))
