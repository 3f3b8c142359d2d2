"""An extension is one file: the examples in CONTRIBUTING.md, each written to a file, used from the manifest to the page.

Every use is in a fresh process that knows of the extensions by the environment alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rave_dist.errors import ConfigurationError
from rave_dist.extensions import Registry

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))

MANIFEST = """
name: band
store: shelf://studio/library
defaults:
  {config: v2_tiny, override: {CAPACITY: 4}, window: 40960, batch: 2, budget: {steps: 6}, checkpoint: {steps: 4}}
instruments:
  plucks:
    sources: [takes]
    augment: {mangle: 0.8, reverse: 1}
    losses: {level: 0.5}
    exports: [arrays]
    metrics: [crest]
"""

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(program)`` runs a program in a fresh process that has the extensions and returns the JSON that it prints."""
    for name, text in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "band.yaml").write_text(MANIFEST)

    def in_process(program: str, *, extensions: str = ",".join(EXAMPLES)) -> Any:
        path = os.pathsep.join(filter(None, (str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {"SHELF_ROOT": str(tmp_path / "shelves"), "RAVE_DIST_EXTENSIONS": extensions, "PYTHONPATH": path}
        command = [sys.executable, "-W", "ignore", "-c", f"import json\n{program}"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return in_process


def test_there_is_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == {"shelf", "headerless", "reverse", "level", "arrays", "crest"}
    assert max(len(text.strip().splitlines()) for text in EXAMPLES.values()) <= 20


def test_a_scheme_and_a_decoder_list_and_read_recordings(run: Run) -> None:
    answer = run("""
import numpy as np
from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import list_sources, local_copy
from rave_dist.storage.store import Store

store = Store("shelf://studio/in")
for name in ("a.pcm16", "deep/b.PCM16", "c.txt"):
    store.write_bytes(name, np.arange(1000, dtype="<i2").tobytes())
sources = list_sources(["shelf://studio/in"])
with local_copy(sources[0].uri) as path, open_audio(path) as decoder:
    blocks = list(decoder.blocks(seconds=0.01))
print(json.dumps([[s.uri for s in sources], decoder.sample_rate, [float(b.sum() * 32768) for b in blocks],
    [e.key for e in Store("shelf://studio").list("in/deep")], store.claim("a.pcm16"), Store("shelf://studio/in/").uri]))
""")
    uris, rate, sums, below, claimed, uri = answer
    assert uris == ["shelf://studio/in/a.pcm16", "shelf://studio/in/deep/b.PCM16"]
    assert rate == 44100
    assert sums == [sum(range(start, min(start + 441, 1000))) for start in (0, 441, 882)]
    assert below == ["in/deep/b.PCM16"]
    assert claimed is False
    assert uri == "shelf://studio/in"


@pytest.mark.parametrize(
    ("written", "wrong", "nearest"),
    [
        ("reverse: 1", "revers: 1", "reverse"),
        ("level: 0.5", "levle: 0.5", "level"),
        ("[arrays]", "[array]", "arrays"),
        ("[crest]", "[crst]", "crest"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(run: Run, tmp_path: Path, written: str, wrong: str, nearest: str) -> None:
    (tmp_path / "band.yaml").write_text(MANIFEST.replace(written, wrong))
    message = run("""
from rave_dist.errors import LibraryError
from rave_dist.library.manifest import load_library
try:
    load_library("band.yaml")
except LibraryError as error:
    print(json.dumps(str(error)))
""")
    assert wrong.strip("[]").partition(":")[0] in message
    assert nearest in message.partition("fix:")[2]


def test_without_the_extensions_their_names_are_refused_and_nothing_else_is(run: Run) -> None:
    answer = run(
        """
from rave_dist.errors import RaveDistError
from rave_dist.library.manifest import load_library
from rave_dist.storage.store import Store
said = []
for attempt in (lambda: load_library("band.yaml"), lambda: Store("shelf://studio/library")):
    try:
        attempt()
    except RaveDistError as error:
        said.append(str(error))
print(json.dumps(said))
""",
        extensions="",
    )
    assert len(answer) == 2
    for name in ("reverse", "level", "arrays", "crest"):
        assert name in answer[0]
    assert "shelf:// addresses are not supported" in answer[1]


def test_an_extension_that_cannot_be_imported_is_said_so(run: Run) -> None:
    message = run(
        """
from rave_dist.errors import ConfigurationError
from rave_dist.storage.store import Store
try:
    Store("shelf://studio/library")
except ConfigurationError as error:
    print(json.dumps(str(error)))
""",
        extensions="shelf, no_such_module",
    )
    assert message.startswith("no_such_module: ")
    assert "PYTHONPATH" in message


def test_a_name_belongs_to_one() -> None:
    registry: Registry[int] = Registry("thing", {"one": 1}, reserved=("two",))
    registry.register("three", 3)
    for taken in ("one", "two", "three"):
        with pytest.raises(ConfigurationError, match="there already is a thing"):
            registry.register(taken, 0)
    assert dict(registry) == {"one": 1, "three": 3}


@pytest.mark.slow
def test_all_of_them_at_work_in_a_library(run: Run, tmp_path: Path) -> None:
    """Recordings of the new type are trained into a model with the new augmentation and loss, in a store of the new scheme; the
    card has the new file and the new number, and the page shows both."""
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "pluck.pcm16").write_bytes(_pluck())
    answer = run("""
import numpy as np, torch
from rave_dist.audio.io.sources import list_sources
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.dataset.read import load_manifest
from rave_dist.dataset.split import split_dataset
from rave_dist.library.manifest import load_library
from rave_dist.registry.publish import publish
from rave_dist.reports.page import write_report
from rave_dist.training.heartbeat import record_of, write_record
from rave_dist.training.trainer import train

torch.set_num_threads(1)
library = load_library("band.yaml")
recipe = Recipe(sample_rate=44100, channels=1)
outcomes, shards = prepare(
    list_sources(library.sources("plucks")), store=library.store, instrument="plucks", recipe=recipe, known=frozenset())
earlier = load_earlier(library.store, "plucks", recipe)
made = assemble(outcomes, [tuple(shards)], instrument="plucks", recipe=recipe, credit={}, earlier=earlier)
spec = library.training_spec("plucks", dataset=write_manifest(library.store, made, library.name).id)
parts = split_dataset(library.store, load_manifest(library.store, "plucks", spec.dataset), window=40960)
train(library.store, spec, parts.train, parts.validation)
card = publish(library.store, spec)
record = record_of(library.store, spec).model_copy(update={"state": "done", "model": card.reference})
write_record(library.store, record)
page = library.store.read_bytes(write_report(library.store, library, [record])).decode()
print(json.dumps([card.complete, card.to_json(), page, [e.key for e in library.store.list(spec.run_key)]]))
""")
    complete, card, page, keys = answer
    assert complete
    assert card["metrics"]["model"]["further"]["Crest factor (dB)"] >= 0
    assert card["metrics"]["silence"]["further"]["Crest factor (dB)"] is None
    stored = tmp_path / "shelves" / "studio" / "library" / card["exports"]["arrays"]["key"]
    assert stored.stat().st_size == card["exports"]["arrays"]["bytes"]
    assert stored.name == "plucks_arrays.npz"
    assert "Crest factor (dB)" in page
    assert "plucks_arrays.npz" in page
    events = [tmp_path / "shelves" / "studio" / "library" / key for key in keys if "/events/" in key]
    assert any(b"extension_level" in path.read_bytes() for path in events)


def _pluck() -> bytes:
    """Eight seconds of a plucked tone, 16-bit PCM without a header."""
    import numpy as np

    time = np.arange(8 * 44100) / 44100
    return (16000 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * 330 * time)).astype("<i2").tobytes()
