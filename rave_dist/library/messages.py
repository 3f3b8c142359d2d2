"""What a manifest's value must be, in plain words and with an example, where pydantic speaks of types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXAMPLES = {
    "name": "name: malay-percussion",
    "store": "store: ./store",
    "defaults": "defaults: {config: v2_small}",
    "instruments": "instruments: {rebana: {sources: [recordings/rebana]}}",
    "sources": "sources: [recordings/rebana]",
    "seed": "seed: 1",
    "config": "config: v2_small, or config: [v2, causal]",
    "sample_rate": "sample_rate: 44100",
    "channels": "channels: 1",
    "budget": "budget: {hours: 4}",
    "hours": "hours: 4",
    "steps": "steps: 200000",
    "until": "until: {patience: 10}",
    "patience": "patience: 10",
    "improvement": "improvement: 0.01",
    "override": "override: {CAPACITY: 48}",
    "window": "window: 65536",
    "batch": "batch: 8",
    "checkpoint": "checkpoint: {minutes: 10}",
    "minutes": "minutes: 10",
    "keep": "keep: 2",
    "recover": "recover: {rate: 0.5}",
    "rate": "rate: 0.5",
    "times": "times: 3",
    "credit": "credit: {performer: Ada, licence: CC0-1.0}",
    "base": "base: kompang, or base: {stock: runs/drums}",
    "model": "model: kompang",
    "stock": "stock: runs/drums",
    "resume": "resume: true",
    "ema": "ema: true",
    "train": "train: true",
    "augment": "augment: low-data, or augment: {pitch: 0.5}",
    "compute": "compute: [bf16, fused-adam]",
}
"""How each key is written."""

_WORDS = {
    "greater_than": "more than {gt} is needed",
    "greater_than_equal": "{ge} or more is needed",
    "less_than": "less than {lt} is needed",
    "less_than_equal": "{le} or less is needed",
    "too_short": "at least one is needed",
    "string_too_short": "it is empty",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' are allowed, up to 63, the first a letter or digit",
}
_KINDS = {  # beginnings of pydantic's names
    "int_": "a whole number is needed",
    "float_": "a number is needed",
    "finite_number": "a number is needed",
    "bool_": "true or false is needed",
    "dict_": "keys with values are needed",
    "model_": "keys with values are needed",
    "tuple_": "one name or a list of them is needed",
    "string_": "a text is needed",
}


def words(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, from one of the errors of a pydantic ``ValidationError``."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    for beginning, said in _KINDS.items():
        if kind.startswith(beginning):
            return said
    return str(problem["msg"]).removeprefix("Value error, ")


def example(location: tuple[int | str, ...]) -> str:
    """How the key at a place, or the nearest one around it, is written; empty where nothing is known."""
    return next((EXAMPLES[part] for part in reversed(location) if part in EXAMPLES), "")
