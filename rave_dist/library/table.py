"""``python -m rave_dist.library.table README.md``: writes the README's table of keys from the schema."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rave_dist.library.keys import all_keys

_HEAD = "| key | meaning | example | default |\n|---|---|---|---|\n"
_DOCUMENT = re.compile(r"\bdocs/[\w-]+\.md\b")
_TABLE = re.compile(r"^\| key \| meaning \|.*\n(?:\|.*\n)+", re.MULTILINE)


def manifest_table() -> str:
    """All keys of the manifest as a Markdown table; nested keys are written like ``budget: hours``."""
    rows = []
    for key in all_keys():
        meaning = _DOCUMENT.sub(lambda found: f"[{found[0]}]({found[0]})", key.description)
        rows.append(f"| `{': '.join(key.path)}` | {meaning} | `{key.examples[0]}` | {key.default} |\n")
    return _HEAD + "".join(rows)


def update(path: Path) -> None:
    """Replaces the table in a Markdown file, which must have one."""
    text, count = _TABLE.subn(lambda _: manifest_table(), path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{path} has {count} tables of keys, expected one")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1]))
