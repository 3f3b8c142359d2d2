"""Writes docs/api.md from the docstrings of the public names: ``make docs``. With ``--print`` it only prints the page."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rave_dist as rd
from rave_dist import errors
from rave_dist.checks import InstrumentCheck, LibraryCheck
from rave_dist.conversion.stream import Conversion
from rave_dist.library_stages import Ingested
from rave_dist.maintenance.prune import Pruned, Removable
from rave_dist.maintenance.verify import Verification
from rave_dist.pipeline import LibraryRun
from rave_dist.progress import Progress
from rave_dist.records import ConversionItem, ConversionRecord, DatasetManifest, Metrics, ModelCard, Problem, RunRecord

PAGE = Path(__file__).with_name("api.md")
INTRODUCTION = """# Python

```python
import rave_dist as rd

library = rd.Library.load("library.yaml")  # or Library.from_dict({...})
rd.check(library)  # planned runs, problems and fixes
rd.run(library, progress=True)  # check, ingest, train, publish, report
rd.find_model(library.store, "rebana")  # in a notebook: facts, pictures and players
rd.convert(library.store, "rebana", "archive", "converted")
```

The functions are those of the command line, with the same defaults, and silent unless `progress` asks for a display.
A library may be given as the path of its manifest, a store as its address. Shapes: `[C, T]` means channels, samples.

[first_instrument.ipynb](first_instrument.ipynb) is a notebook from recordings to a converted file.

Generated from the docstrings by `make docs`. The examples run as tests, in a folder with `library.yaml`, recordings, a store
with a model named *rebana*, and a field recording.
"""
ALIASES = {
    "AnyLibrary": "str | Path | Library",
    "AnyStore": "str | Path | Store",
    "AnyProgress": "Progress | bool | None",
    "Names": "str | Sequence[str] | None",
    "AudioFormat": "'keep' | 'flac' | 'wav'",
    "PublishedModel": "ModelCard",
    "Audio": "NDArray[float32]",
}
RETURNED = (
    *(LibraryCheck, InstrumentCheck, Ingested, DatasetManifest, RunRecord, LibraryRun, ModelCard, Metrics, ConversionRecord),
    *(ConversionItem, Conversion, Verification, Pruned, Removable, Problem),
)
SECTIONS = ("Args", "Returns", "Yields", "Raises", "Attributes", "Example")


def main() -> None:
    """Writes or prints the page."""
    page = "\n".join(part.rstrip() + "\n" for part in parts())
    if "--print" in sys.argv[1:]:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page, encoding="utf-8")


def parts() -> Iterator[str]:
    """The page, part by part."""
    yield INTRODUCTION
    public = {name: getattr(rd, name) for name in rd.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    yield "## Functions"
    for name in sorted(functions, key=lambda name: (functions[name].__module__ != "rave_dist.api", line_of(functions[name]))):
        yield from entry(f"rd.{name}", functions[name], level=3)
    yield "## Classes"
    for name in ("Library", "Store", "Converter"):
        yield from entry(f"rd.{name}", public[name], level=3)
        for member in members(public[name]):
            yield from entry(f"{name}.{member}", inspect.getattr_static(public[name], member), level=4)
    yield "## Progress"
    yield "`progress=True` shows the display of the command line. An object with these methods receives the reports instead:"
    for member in members(Progress):
        yield from entry(f"progress.{member}", inspect.getattr_static(Progress, member), level=4)
    yield "## What the functions return"
    yield "Records are frozen and have `to_json()`. Notebooks display libraries, model cards and conversion records as HTML."
    for kind in RETURNED:
        yield from record(kind)
    yield "## Errors"
    yield "Each has `what`, `where` and `fix`, and is also a standard Python error (in brackets)."
    yield f"```\n{textwrap.dedent((errors.__doc__ or '').partition('::')[2]).strip()}\n```"
    yield from entry("rd.RaveDistError", rd.RaveDistError, level=3)


def line_of(function: Any) -> int:
    """The line of its module in which a function begins."""
    return int(function.__code__.co_firstlineno)


def members(kind: type) -> list[str]:
    """Public methods and properties in the order of their definition, those of base classes after a class's own."""
    owners = [base for base in kind.__mro__ if base.__module__.startswith("rave_dist")]
    names = (name for base in owners for name in vars(base) if not name.startswith("_") and described(base, name))
    return list(dict.fromkeys(names))


def described(owner: type, name: str) -> bool:
    """Whether a member of a class has its own docstring."""
    value = inspect.getattr_static(owner, name)
    return bool(getattr(getattr(value, "__func__", value), "__doc__", None)) and not isinstance(value, str | tuple | dict)


def entry(name: str, value: Any, *, level: int) -> Iterator[str]:
    """A function, method, property or class: signature, text, arguments, errors, example."""
    function = getattr(value, "__func__", value)
    signature = "" if isinstance(value, property) else signature_of(function)
    sections = split(inspect.cleandoc(function.__doc__ or ""))
    yield f"{'#' * level} `{name}`"
    if signature:
        yield f"```python\n{name}{signature}\n```"
    yield prose(sections[""])
    for title, label in (("Args", ""), ("Attributes", "Attributes:\n\n")):
        if title in sections:
            yield label + "\n".join(f"- `{key}`: {text}" for key, text in pairs(sections[title]))
    for title in ("Returns", "Yields"):
        if title in sections:
            yield f"{title}: {prose(sections[title])}"
    if "Raises" in sections:
        yield "Raises:\n\n" + "\n".join(f"- `{key}`: {text}" for key, text in pairs(sections["Raises"]))
    if "Example" in sections:
        yield f"```python\n{sections['Example'].rstrip()}\n```"


def record(kind: type) -> Iterator[str]:
    """A record: its text and its fields with their types."""
    sections = split(inspect.cleandoc(kind.__doc__ or ""))
    yield f"### {kind.__name__}"
    yield prose(sections[""])
    if "Attributes" in sections:
        yield "\n".join(f"- `{key}`: {text}" for key, text in pairs(sections["Attributes"]))
        return
    fields = [(name, typed(note)) for name, note in kind.__annotations__.items() if not name.startswith("_")]
    if fields:
        yield "Fields: " + ", ".join(f"`{name}: {note}`" for name, note in fields) + "."


def split(text: str) -> dict[str, str]:
    """A docstring's text and its dedented sections by title."""
    pieces = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.MULTILINE)
    return {"": pieces[0], **{t: textwrap.dedent(body).strip("\n") for t, body in zip(pieces[1::2], pieces[2::2], strict=True)}}


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """``key: text`` entries; the text may continue in indented lines."""
    for item in re.split(r"\n(?=\S)", text):
        key, _, meaning = item.partition(":")
        yield key, prose(meaning)


def prose(text: str) -> str:
    """Paragraphs in Markdown: lines joined, ``code`` with single backticks."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs).replace("``", "`")


def signature_of(function: Any) -> str:
    """A signature with the aliases of types spelt out; over several lines where it is long."""
    signature = inspect.signature(function)
    words: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if name not in ("self", "cls"):
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            words.append(f"{name}: {typed(parameter.annotation)}{default}")
    result = "" if inspect.isclass(function) else f" -> {typed(signature.return_annotation)}"
    text = f"({', '.join(words)}){result}"
    return text if len(text) <= 90 else "(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"


def typed(annotation: Any) -> str:
    """An annotation with the aliases spelt out."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return re.sub(r"\b(" + "|".join(ALIASES) + r")\b(?!\.)", lambda found: ALIASES[found[0]], text)


if __name__ == "__main__":
    main()
