"""The frame of all pages: one file, one script that may run, escaped values."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import jinja2
import pytest

from rave_dist.pages.render import environment, render

PAGE = '{% extends "base.html" %}{% block main %}<p>{{ words }}</p>{% endblock %}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "a.css").write_text("main > p { color: red; }")
    (tmp_path / "a.js").write_text('"use strict"; // <&>')
    return tmp_path


def rendered(folder: Path, **values: object) -> str:
    return render(environment(folder).get_template("a.html"), folder, styles=("a.css",), title="A <page>", **values)


def test_only_the_page_s_own_script_may_run(folder: Path) -> None:
    page = rendered(folder, script="a.js", words="x")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy


def test_a_page_without_a_script_allows_none(folder: Path) -> None:
    page = rendered(folder, words="x")
    assert "<script" not in page
    assert "script-src" not in page


def test_what_people_write_is_escaped_and_a_style_is_not(folder: Path) -> None:
    page = rendered(folder, words="<b>&</b>")
    assert "<p>&lt;b&gt;&amp;&lt;/b&gt;</p>" in page
    assert "<title>A &lt;page&gt;</title>" in page
    assert "main > p { color: red; }" in page
    assert page.index(":root") < page.index("main > p"), "a page's own style follows the common one"


def test_a_missing_value_is_an_error(folder: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        rendered(folder)
