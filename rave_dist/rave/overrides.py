"""Overrides as gin statements, checked against the configuration that they change.

gin accepts any macro and any value for any parameter; a misspelt ``CAPACTIY: 48`` would train for a night without effect.
Here an override must replace a value that the configuration sets, or set a parameter of a class that it uses.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import UnionType
from typing import Any, Union, get_args, get_origin

from rave_dist.errors import ConfigurationError
from rave_dist.suggest import suggest

_STATEMENT = re.compile(r"^(?P<key>[A-Za-z_][\w./]*) = ", re.MULTILINE)
_OURS = {"SAMPLING_RATE": "sample_rate"}

Parameters = Mapping[str, Parameter]


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


def override_line(
    key: str, value: Any, known: Mapping[str, str], *, parameters: Callable[[str], Parameters] = lambda owner: {}
) -> str:
    """One override as a gin statement.

    Args:
        key: a macro (``CAPACITY``) or a binding (``blocks.NoiseGenerator.noise_bands``).
        value: number, boolean, string, list or mapping; a string that starts with ``@`` or ``%`` is a gin reference.
        known: the configuration's `statements`.
        parameters: the parameters of a class or function of RAVE, by its name; empty if not known.

    Raises:
        ConfigurationError: no such setting (with the nearest), or a value of a different type than RAVE's own.
    """
    key = full_key(key, known)
    if key in _OURS or key.endswith("RAVE.n_channels"):
        raise ConfigurationError(f"{key} is not an override", where="override", fix=f"set {_OURS.get(key, 'channels')} instead")
    owner, _, name = key.rpartition(".")
    if key not in known and (not owner or owner not in {other.rpartition(".")[0] for other in known}):
        raise ConfigurationError(f"RAVE has no override {key!r} here", where="override", fix=suggest(key, sorted(known)))
    possible = parameters(owner.rpartition("/")[2]) if owner else {}
    if possible and name not in possible:
        raise ConfigurationError(f"{owner} takes no {name!r}", where="override", fix=suggest(name, sorted(possible)))
    for macro in _macros(value):
        if macro not in known:
            macros = sorted(other for other in known if "." not in other)
            raise ConfigurationError(f"{key} names {macro!r}, which is not set", where="override", fix=suggest(macro, macros))
    example, wanted = _expected(known.get(key, ""), known, possible.get(name), is_macro=not owner)
    if isinstance(value, str) and wanted in (_WHOLE, _NUMBER) and value[:1] not in ("@", "%"):
        number = _literal(value)  # YAML reads 1e-6 as a string
        value = value if number is None else number
    if wanted is not None and not _fits(value, wanted, example, known):
        shown = known.get(key) or example
        raise ConfigurationError(
            f"{key} is {_kind(value)}, RAVE's own value is {wanted}", where="override", fix=f"for example {key}: {shown}"
        )
    return f"{key} = {_written(value)}"


_WHOLE, _NUMBER, _TRUTH, _TEXT = "a whole number", "a number", "true or false", "a string"
_REFERENCE, _NOTHING = "a reference (@…)", "nothing"
_PLURALS = {
    _WHOLE: "whole numbers",
    _NUMBER: "numbers",
    _TRUTH: "booleans",
    _TEXT: "strings",
    _REFERENCE: "references (@…)",
}
_BY_TYPE: Mapping[Any, str] = {int: _WHOLE, float: _NUMBER, bool: _TRUTH, str: _TEXT}


def _expected(text: str, known: Mapping[str, str], parameter: Parameter | None, *, is_macro: bool) -> tuple[Any, str | None]:
    """An example and the required type of a value: the parameter's annotation, otherwise the type it replaces; None for any."""
    if text.startswith(("@", "[@")):
        return text, _REFERENCE if text[0] == "@" else f"a list of {_PLURALS[_REFERENCE]}"
    example = literal(text, known)
    if example is None and parameter is not None and parameter.default is not Parameter.empty:
        example = parameter.default
    if example is None or isinstance(example, int | float | str):
        annotated = _annotated(parameter)
        if annotated is not None:
            return example, annotated
        if _kind(example) == _WHOLE and not is_macro:
            return example, _NUMBER  # nothing requires a whole number
    kind = _kind(example)
    return example, None if kind == _NOTHING or callable(example) else kind


def _annotated(parameter: Parameter | None) -> str | None:
    """The type named by an annotation, ``Optional`` or not."""
    annotation = None if parameter is None else parameter.annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for part in parts:
        if get_origin(part) is Callable:
            return _REFERENCE
        if isinstance(part, type) and part in _BY_TYPE:
            return _BY_TYPE[part]
    return None


def _fits(value: Any, wanted: str, example: Any, known: Mapping[str, str]) -> bool:
    if isinstance(value, str) and value[:1] == "@":
        return wanted in (_REFERENCE, _TEXT)
    if isinstance(value, str) and value[:1] == "%":
        meant = literal(value, known)
        return meant is None or _fits(meant, wanted, example, known)
    if value is None:
        return wanted == _REFERENCE or example is None
    return wanted in (_kind(value), _kind(value).replace("whole number", "number"))


def _macros(value: Any) -> list[str]:
    """Macros that a value refers to."""
    if isinstance(value, list | tuple):
        return [macro for item in value for macro in _macros(item)]
    return [value[1:]] if isinstance(value, str) and value.startswith("%") else []


def _written(value: Any) -> str:
    """A value as gin writes it."""
    if isinstance(value, str) and value[:1] in ("@", "%"):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return repr(value)


def literal(text: str, known: Mapping[str, str]) -> Any:
    """The value of a statement, followed through macros (``%CAPACITY``); None for a reference."""
    for _ in known:
        if not text.startswith("%"):
            break
        text = known.get(text[1:], "")
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _kind(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, list | tuple):
        kinds = {_kind(item) for item in value}
        if kinds == {_WHOLE, _NUMBER}:
            kinds = {_NUMBER}
        if len(kinds) > 1:
            return "a list of various things"
        return f"a list of {_PLURALS.get(kinds.pop(), 'lists')}" if kinds else "an empty list"
    if isinstance(value, str) and value.startswith("@"):
        return _REFERENCE
    return "a mapping" if isinstance(value, dict) else _BY_TYPE.get(type(value), f"{value!r}")
