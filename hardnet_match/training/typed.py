"""Nested dataclasses from TOML and back: every key known, every value of its type."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from ..errors import OptionError

T = TypeVar("T")


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """OptionError, with the nearest name, where a value is none of those known."""
    options = list(known)
    if value not in options:
        near = difflib.get_close_matches(value, options, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise OptionError(f"{key} {value!r} is unknown: {hint}choose one of {', '.join(options)}")


def typed(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass out of nested mappings; keys in messages begin with `prefix`.

    Raises:
        OptionError: a key is unknown (the nearest known one is named) or missing, or a value has the wrong type.
    """
    hints = typing.get_type_hints(kind)
    known = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5) or list(known)
            told = f"did you mean {prefix}{near[0]}?" if len(near) == 1 else f"known: {', '.join(near)}"
            raise OptionError(f"unknown key {prefix}{key}; {told}")
    missing = [
        prefix + name
        for name, one in known.items()
        if name not in values and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise OptionError(f"{', '.join(missing)} must be given")
    return kind(**{key: _value(hints[key], value, prefix + key) for key, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise OptionError(f"{key} is a table, got {value!r}")
        return typed(typing.cast("type[Any]", hint), value, f"{key}.")
    if typing.get_origin(hint) is Mapping:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            value = {name: {} for name in value}
        if not isinstance(value, Mapping):
            raise OptionError(f"{key} is a table, got {value!r}")
        inner_hint = typing.get_args(hint)[1]
        if inner_hint is Any:
            return dict(value)
        return {name: _value(inner_hint, item, f"{key}.{name}") for name, item in value.items()}
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise OptionError(f"{key} is a list, got {value!r}")
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise OptionError(f"{key} takes {len(inner)} values, got {value!r}")
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_value(one, item, key) for one, item in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise OptionError(f"{key} is a {_NAMES[hint]}, got {value!r}")
    if hint is float and math.isnan(value):
        raise OptionError(f"{key} is a number, got nan")
    return value


_NAMES: Mapping[Any, str] = types.MappingProxyType(
    {int: "whole number", float: "number", str: "text in quotes", bool: "true or false"}
)


def put(values: dict[str, Any], change: str) -> None:
    """Put `key=value` over nested mappings: `schedule.batch=256`. The value is TOML; what is none is a word."""
    key, equals, text = change.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise OptionError(f"--set {change!r}: write key=value, as schedule.batch=256")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    place = values
    for part in parts[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise OptionError(f"--set {change!r}: {part} is a value, not a table")
        place = inner
    place[parts[-1]] = value


def flat(recipe: Any) -> dict[str, str]:
    """Every key of nested dataclasses, dotted, with its value as TOML; in the order of the file."""
    out: dict[str, str] = {}

    def walk(part: Any, prefix: str) -> None:
        inner = [one.name for one in dataclasses.fields(part)]
        nested = [name for name in inner if dataclasses.is_dataclass(getattr(part, name))]
        for name in inner:
            if name not in nested:
                out[prefix + name] = _toml(getattr(part, name))
        for name in nested:
            walk(getattr(part, name), f"{prefix}{name}.")

    walk(recipe, "")
    return out


def to_toml(recipe: Any) -> str:
    """Nested dataclasses as a file, every key written out; `typed` gives equal ones of it."""
    lines, table = [], ""
    for key, value in flat(recipe).items():
        part, _, name = key.rpartition(".")
        if part != table:
            lines += ["", f"[{part}]"]
            table = part
        lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    return repr(value)
