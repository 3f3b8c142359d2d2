"""The JSON Schema (draft 2020-12) of the manifest, for completion and validation of YAML in editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rave_dist.library.schema import LibraryManifest
from rave_dist.records.words import SCHEMA_BOUNDS


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, without a title for every key, and strict about the names of instruments."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        result = super().dict_schema(schema)
        if "patternProperties" in result:
            result["additionalProperties"] = False
        return result


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest file.

    It does not contain relations between keys that JSON Schema cannot express, for example options that cannot be combined.

    Example:
        >>> sorted(manifest_schema()["required"])
        ['instruments', 'name', 'store']
    """
    schema = _cleaned(LibraryManifest.model_json_schema(schema_generator=_Generator))
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **schema,
        "title": "rave-dist library manifest",
        "description": "What to train, on which recordings, for how long, and where the results are kept.",
    }


def _cleaned(value: Any) -> Any:
    """A schema with JSON Schema's names of bounds, without class names and defaults of absent keys."""
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") in ("number", "integer"):
        value = {SCHEMA_BOUNDS.get(name, name): inner for name, inner in value.items()}
    if value.get("type") == "object":
        value = {name: inner for name, inner in value.items() if name != "title"}
    is_noise = value.get("default", "") is None or "x-default" in value
    return {name: _cleaned(inner) for name, inner in value.items() if not (name == "default" and is_noise)}
