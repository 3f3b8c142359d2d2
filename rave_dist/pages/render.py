"""Renders pages of which ``base.html`` is the frame: one file each, with its style and its script inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def environment(folder: Path) -> jinja2.Environment:
    """The templates of a folder, and ``base.html``, which they extend; all values are escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    template: jinja2.Template, folder: Path, *, styles: Sequence[str], script: str | None = None, **values: object
) -> str:
    """A page's HTML.

    Args:
        template: it extends ``base.html``.
        folder: of the style sheets and the script.
        styles: names of style sheets, which follow ``base.css``.
        script: name of the only script that may run.
        values: of the template; ``title`` is among them.
    """
    sheets = [_FOLDER / "base.css", *(folder / name for name in styles)]
    text = (folder / script).read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return template.render(
        style=Markup("".join(path.read_text(encoding="utf-8") for path in sheets)),
        script=Markup(text),
        script_hash=f"sha256-{digest}",
        **values,
    )
