"""RAVE's configurations as text: what they set, and overrides as statements that are checked against it.

gin takes any macro for granted and any value for any parameter; a misspelt ``CAPACTIY: 48`` would train for a night without
effect. Here an override must replace something that the configuration sets, or set a parameter of a class that it uses.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from rave_dist.errors import ConfigurationError

_STATEMENT = re.compile(r"^(?P<key>[A-Za-z_][\w./]*) = ", re.MULTILINE)
_OURS = {"SAMPLING_RATE": "sample_rate"}


def nearest(name: str, known: Sequence[str]) -> str:
    """The fix for a name that is not known: the one that was meant, or all."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"one of: {', '.join(known)}"


def statements(text: str) -> dict[str, str]:
    """Macro and binding names of a configuration text, each with its value as gin writes it."""
    marks = list(_STATEMENT.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {
        mark["key"]: text[mark.end() : end].partition("\n#")[0].strip(" \n\\") for mark, end in zip(marks, ends, strict=True)
    }


def full_key(key: str, known: Mapping[str, str]) -> str:
    """The name under which a configuration knows a binding: ``rave.RAVE.weights`` and ``RAVE.weights`` are one.

    A binding that is not set yet is known by its class, and gin then says whether the class has such a parameter.
    """
    if key in known or "." not in key:
        return key
    scope, _, selector = key.rpartition("/")
    owner, _, parameter = selector.rpartition(".")
    owner = owner.rpartition(".")[2]
    for other in known:
        other_scope, _, other_selector = other.rpartition("/")
        other_owner = other_selector.rpartition(".")[0]
        if other_scope == scope and other_owner and other_owner.rpartition(".")[2] == owner:
            return f"{other.rpartition('.')[0]}.{parameter}"
    return key


def override_line(key: str, value: Any, known: Mapping[str, str]) -> str:
    """One override as a gin statement.

    Args:
        key: a macro (``CAPACITY``) or a binding (``blocks.NoiseGenerator.noise_bands``).
        value: number, truth value, list, mapping or text; a text that starts with ``@`` or ``%`` is a gin reference.
        known: the configuration's `statements`.

    Raises:
        ConfigurationError: nothing of that name (with the nearest), or a value of another kind than RAVE's own.
    """
    key = full_key(key, known)
    if key in _OURS or key.endswith("RAVE.n_channels"):
        raise ConfigurationError(f"{key} is not an override", where="override", fix=f"set {_OURS.get(key, 'channels')} instead")
    owners = {other.rpartition(".")[0] for other in known}
    if key not in known and ("." not in key or key.rpartition(".")[0] not in owners):
        raise ConfigurationError(f"RAVE has no override {key!r} here", where="override", fix=nearest(key, sorted(known)))
    if isinstance(value, str) and value[:1] in ("@", "%"):
        return f"{key} = {value}"
    current = _literal(known.get(key, ""))
    if isinstance(value, str) and isinstance(current, int | float):
        value = _literal(value)  # YAML reads 1e-6 as a text
    if current is not None and _kind(current) != _kind(value):
        raise ConfigurationError(
            f"{key} is {_kind(value)}, RAVE's own value is {_kind(current)}",
            where="override",
            fix=f"for example {key}: {current}",
        )
    return f"{key} = {value!r}"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {int: "a number", float: "a number", str: "a text", list: "a list", tuple: "a list", dict: "a mapping"}
    return kinds.get(type(value), f"{value!r}")
