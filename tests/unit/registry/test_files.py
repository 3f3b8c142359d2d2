"""Cards and model files are other people's input: nothing outside of store and cache is read or written, nothing is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rave_dist.errors import DamagedObjectError, StoreError, UntrustedModelError
from rave_dist.identity import hash_file
from rave_dist.records import ModelCard, ModelFile
from rave_dist.registry.operators import EXPORTED, check_operators, operators
from rave_dist.registry.store import fetch, find, list_models
from rave_dist.storage.store import Store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../escaped"},
        {"name": "a/b"},
        {"name": ".hidden"},
        {"name": "a\0b"},
        {"name": "a" * 300},
        {"version": "../../../escaped"},
        {"version": ""},
        {"library": "../runs"},
        {"run_id": ".."},
        {"sample_rate": 0},
        {"hop": 0},
        {"hop": 1 << 40},
        {"channels": 10**9},
        {"receptive_field": (0, 1 << 60)},
    ],
)
def test_a_card_that_leads_elsewhere_is_named_and_not_used(
    local_store: Store, publish_tiny: Callable[..., ModelCard], tmp_path: Path, change: dict[str, Any]
) -> None:
    good = publish_tiny(local_store, "good")
    card = publish_tiny(local_store, "drums")
    local_store.write_json(card.folder.card, {**card.to_json(), **change})
    invalid: list[DamagedObjectError] = []
    assert list_models(local_store, invalid.append) == [good]
    assert [error.where for error in invalid] == [local_store.address(card.folder.card)]
    with pytest.raises(DamagedObjectError):
        find(local_store, card.reference)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DamagedObjectError):  # a card that was made in memory
        fetch(local_store, card.model_copy(update=change), folder=tmp_path / "cache")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("key", ["/etc/passwd", "../../../etc/passwd", "models/../../x", "", "a//b", "a/\0", "./a"])
def test_a_key_of_a_file_stays_in_the_store(local_store: Store, publish_tiny: Callable[..., ModelCard], key: str) -> None:
    card = publish_tiny(local_store, "drums")
    document = card.to_json()
    document["files"]["offline"]["key"] = key
    local_store.write_json(card.folder.card, document)
    with pytest.raises(DamagedObjectError, match=r"files\.offline\.key"):
        find(local_store, card.reference)


def test_the_key_of_a_card_is_not_followed(local_store: Store, publish_tiny: Callable[..., ModelCard], tmp_path: Path) -> None:
    card = publish_tiny(local_store, "drums")
    local_store.write_bytes("private/diary.txt", b"not yours")
    other = ModelFile(key="private/diary.txt", sha256=hash_file(Path(local_store.uri) / "private/diary.txt"), bytes=9)
    spoilt = card.model_copy(update={"files": {**card.files, "offline": other}})
    with pytest.raises(StoreError, match="is not the published file"):
        fetch(local_store, spoilt, folder=tmp_path / "cache")
    assert "private" not in str(spoilt.summary(local_store.uri)["files"])


def test_a_card_in_another_model_s_folder_is_not_used(local_store: Store, publish_tiny: Callable[..., ModelCard]) -> None:
    card = publish_tiny(local_store, "drums")
    local_store.write_json("models/bass/0123456789ab/card.json", card.to_json())
    with pytest.raises(DamagedObjectError, match="not of its folder"):
        find(local_store, "bass@0123456789ab")


class Reads(nn.Module):
    """Reads a file when it is played."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file("/etc/passwd", False, 10, dtype=torch.uint8)


class Saves(nn.Module):
    """Writes a file when it is played."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "/tmp/written")
        return x


class Sorts(nn.Module):
    """Harmless, and nothing that an export does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x)[0]


class RunsAtLoading(nn.Module):
    """Runs code as soon as it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    @torch.jit.export
    def __getstate__(self) -> tuple[float, bool]:
        return self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[float, bool]) -> None:
        self.scale = state[0] + 1
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return x


def published(store: Store, card: ModelCard, path: Path) -> ModelCard:
    """The card with another file."""
    store.upload(path, card.folder.offline)
    file = ModelFile(key=card.folder.offline, sha256=hash_file(path), bytes=path.stat().st_size)
    return card.model_copy(update={"files": {"offline": file}})


@pytest.mark.parametrize(
    ("module", "word"), [(Reads, "from_file"), (Saves, "save"), (Sorts, "sort"), (RunsAtLoading, "__setstate__")]
)
def test_a_program_that_is_no_export_is_refused_unless_trusted(
    local_store: Store, publish_tiny: Callable[..., ModelCard], tmp_path: Path, module: type[nn.Module], word: str
) -> None:
    path = tmp_path / "model.ts"
    torch.jit.script(module()).save(str(path))
    card = published(local_store, publish_tiny(local_store, "drums"), path)
    with pytest.raises(UntrustedModelError, match=word) as refused:
        fetch(local_store, card, folder=tmp_path / "cache")
    assert "--trust" in refused.value.fix
    assert refused.value.where == local_store.address(card.folder.offline)
    fetch(local_store, card, folder=tmp_path / "cache", trust=True)


def rewritten(source: Path, target: Path, old: str, new: str) -> Path:
    """A copy of an archive whose program says something else."""
    changed = 0
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename.endswith(".py") and old.encode() in data:
                data, changed = data.replace(old.encode(), new.encode()), changed + 1
            copy.writestr(entry, data)
    assert changed
    return target


@pytest.mark.parametrize(
    "new",
    [
        "torch.from_file(",
        "torch . from_file (",
        "torch.\\\nfrom_file(",
        "torch.  # sum\n from_file(",
        "ops.aten.from_file(",
        "torch.fr\N{LATIN SMALL LETTER O WITH MACRON}m_file(",
        "x.save(",
    ],
)
def test_no_spelling_of_an_operator_is_overlooked(tiny_model: Any, tmp_path: Path, new: str) -> None:
    path = rewritten(tiny_model.offline, tmp_path / "model.ts", "torch.tanh(", new)
    with pytest.raises(UntrustedModelError):
        check_operators(path, where="model")


def test_what_is_no_archive_is_refused(tmp_path: Path, tiny_model: Any) -> None:
    path = tmp_path / "model.ts"
    for data in (b"", b"not a model", b"\0\0\0\0PTMF" + tiny_model.offline.read_bytes(), b"PK\3\4" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(UntrustedModelError, match="not a TorchScript archive"):
            check_operators(path, where="model")


def test_exports_are_accepted(tiny_model: Any) -> None:
    for path in (tiny_model.offline, tiny_model.streaming):
        assert operators(path) <= EXPORTED
        check_operators(path, where="model")


def test_nothing_that_reads_or_writes_files_is_on_the_list() -> None:
    dangerous = {"from_file", "save", "load", "_save", "_load", "open", "read", "write", "eval", "exec", "set_", "getattr"}
    assert not EXPORTED & dangerous
