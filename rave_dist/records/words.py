"""The problems of values in plain words, without those of the library that finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have at least one entry",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "string_pattern_mismatch": "has characters that it must not have",
}
SCHEMA_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""JSON Schema's names of bounds that pydantic writes under its own, for numbers with validators."""

_TYPES = {  # prefixes of pydantic's error types
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a number",
    "bool_": "must be true or false",
    "dict_": "must be keys with values",
    "model_": "must be keys with values",
    "tuple_": "must be one name or a list of names",
    "string_": "must be a string",
}


def words(problem: Mapping[str, Any]) -> str:
    """The problem of a value, from one of the errors of a pydantic ``ValidationError``."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _WORDS:
        plain = {
            key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in context.items()
        }
        return _WORDS[kind].format(**plain)
    for beginning, text in _TYPES.items():
        if kind.startswith(beginning):
            return text
    return str(problem["msg"]).removeprefix("Value error, ")  # pydantic's prefix of our own sentences
