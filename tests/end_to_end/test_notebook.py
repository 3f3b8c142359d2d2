"""The notebook of docs/ runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first_instrument.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which the notebook ran, and the data that its cells displayed."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    return folder, [output.data for output in outputs if "data" in output]


def test_the_notebook_runs_and_trains_a_model(executed: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, shown = executed
    assert any("'done', 40" in data.get("text/plain", "") for data in shown)
    assert (folder / "first-instrument/converted/pipe-01.flac").is_file()
    assert (folder / "first-instrument/store/report/first-instrument/index.html").is_file()


def test_library_model_and_conversion_show_themselves(executed: tuple[Path, list[dict[str, Any]]]) -> None:
    html = [data["text/html"] for data in executed[1] if "text/html" in data]
    tables = [text for text in html if "<td>drum</td>" in text]
    assert ["waiting" in text for text in tables] == [True, False]
    assert "<td>done</td>" in tables[1]
    players = {title: text for text in html for title in ("Reconstruction", "Before") if f"<b>{title}</b>" in text}
    assert players["Reconstruction"].count("<audio") == players["Reconstruction"].count("<img") == 3
    assert players["Before"].count("<audio") == players["Before"].count("<img") == 2
    assert sum("data:audio/" in text and "<b>" not in text for text in html) == 2, "IPython's own players"


def test_it_is_committed_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) >= 10
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
