"""The pages of the service: ``/`` converts a recording, ``/docs`` lists the routes. Both work without a network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rave_dist.pages.render import environment, render
from rave_dist.records.words import SCHEMA_BOUNDS

_FOLDER = Path(__file__).parent
_BOUNDS = {"minimum": "from", "maximum": "to", "maxLength": "at most"}


@cache
def page_html() -> str:
    """The HTML of ``/``; read once."""
    page = environment(_FOLDER).get_template("page.html")
    return render(page, _FOLDER, styles=("page.css",), script="page.js", title="rave-dist")


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
    page = environment(_FOLDER).get_template("routes.html")
    title = "rave-dist: the HTTP interface"
    return render(page, _FOLDER, styles=("routes.css",), title=title, routes=Markup("".join(routes)))


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
    bounds = {SCHEMA_BOUNDS.get(key, key): value for key, value in part.items()}
    words += [f"{name} {bounds[key]}" for key, name in _BOUNDS.items() if key in bounds]
    return " ".join(words)
