"""The page at ``/``: one HTML file with inline style and script."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def page_html() -> str:
    """The page's HTML; read once."""
    return resources.files("rave_dist.serving").joinpath("page.html").read_text(encoding="utf-8")
