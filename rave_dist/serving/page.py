"""The page at ``/``: one file of HTML with its style and script inside."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def page_html() -> str:
    """The page, as UTF-8 text; read once."""
    return resources.files("rave_dist.serving").joinpath("page.html").read_text(encoding="utf-8")
