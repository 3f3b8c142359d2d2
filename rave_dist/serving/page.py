"""The pages of the service: ``/`` converts a recording, ``/docs`` lists the routes. Both work without a network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from importlib import resources
from typing import Any

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>rave-dist: the HTTP interface</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; font: 16px/1.5 system-ui, sans-serif; }
h2 { margin: 2.4rem 0 0.4rem; font: 600 1.1rem ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
code { font-family: ui-monospace, monospace; }
</style>
</head>
<body>
<h1>The HTTP interface</h1>
<p>Errors are JSON: <code>{"error": {"what": …, "where": …, "fix": …}}</code>. The same description for programs:
<a href="/openapi.json">/openapi.json</a>.</p>
"""


@cache
def page_html() -> str:
    """The HTML of ``/``; read once."""
    return resources.files("rave_dist.serving").joinpath("page.html").read_text(encoding="utf-8")


def routes_html(schema: dict[str, Any]) -> str:
    """The HTML of ``/docs``.

    Args:
        schema: the OpenAPI document of the application.
    """
    routes = [
        "".join(_route(method, path, operation, schema))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return f"{_HEAD}{''.join(routes)}</body>\n</html>\n"


def _route(method: str, path: str, operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2>\n<p>{escape(operation.get('description', ''))}</p>\n"
    rows = [(p["name"], p["schema"], p["required"]) for p in operation.get("parameters", [])]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: <code>{escape(media_type)}</code></p>\n"
        body = content["schema"]
        rows += [(name, part, name in body.get("required", ())) for name, part in body.get("properties", {}).items()]
    if rows:
        yield "<table><tr><th>name</th><th>values</th><th>default</th><th></th></tr>\n"
        for name, part, required in rows:
            default = "required" if required else "" if part.get("default") is None else str(part["default"])
            cells = (name, _values(part), default, part.get("description", ""))
            yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>\n"
        yield "</table>\n"
    yield f"<p>Answers: {escape(', '.join(operation['responses']))}</p>\n"


def _values(part: dict[str, Any]) -> str:
    """The values of a parameter in words."""
    if "anyOf" in part:
        return " or ".join(_values(choice) for choice in part["anyOf"] if choice.get("type") != "null")
    if "enum" in part:
        return ", ".join(map(str, part["enum"]))
    words = [str(part.get("type", "object"))]
    words += [
        f"{name} {part[key]}" for key, name in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most")) if key in part
    ]
    return " ".join(words)
