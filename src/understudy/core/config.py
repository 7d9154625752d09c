"""Settings: frozen dataclasses to plain data and back. Unknown names and wrong types are refused, with a way out.

A default lives in the dataclass alone; files, flags and `--help` are made from it. What a field may be annotated with:
bool, int, float, str, None, `Literal`, tuples, lists, dicts with names as keys, other dataclasses, unions of these.
"""

import json
import math
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from understudy.core.errors import ConfigError, nearest
from understudy.core.files import from_json

Made = TypeVar("Made")
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # standard JSON has no words for these


def to_dict(config: Any) -> Any:
    """Plain data that `from_dict` reads and that JSON can hold; infinities and NaN become "inf", "-inf", "nan"."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config) if f.init}
    if isinstance(config, Mapping):
        return {str(name): to_dict(value) for name, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_dict(value) for value in config]
    if isinstance(config, float) and not math.isfinite(config):
        return "nan" if math.isnan(config) else ("inf" if config > 0 else "-inf")
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise ConfigError(
        f"{config!r} of type {type(config).__name__} is no setting: use numbers, words and tuples of them."
    )


def from_dict(make: Callable[..., Made], data: Mapping[str, Any], title: str = "") -> Made:
    """What `make` makes of plain `data`; what is left out keeps its default.

    Args:
        make: a dataclass, or a function whose parameters are annotated.
        data: what `json.load` or `tomllib.load` gave, or what `to_dict` made. A `Text` is read as the setting needs it.
        title: whose settings they are, for messages; the name of `make` where empty.

    Raises:
        ConfigError: an unknown name (with the nearest known one), a wrong type, or a value that `make` refuses.
    """
    title = title or make.__name__
    try:
        return _made(make, data, title, "")
    except _Mismatch:
        raise ConfigError(f"{title}: expected settings by name, got {say(data)}.") from None


def load(make: Callable[..., Made], path: str | Path, title: str = "") -> Made:
    """What `make` makes of a .toml or .json file. Raises ConfigError, naming the file."""
    return from_dict(make, read(path), title or f"{make.__name__} in {path}")


def read(path: str | Path) -> dict[str, Any]:
    """The plain data of a .toml or .json file. Raises ConfigError, naming the file and the line."""
    path = Path(path)
    parsers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": from_json}
    if path.suffix not in parsers:
        raise ConfigError(f"{path}: settings are read from .toml or .json files.")
    try:
        data = parsers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # both decoders' errors and broken UTF-8 are ValueErrors
        raise ConfigError(f"{path} is no {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected settings by name, got {say(data)}.")
    return data


def merge(config: Made, changes: Mapping[str, Any], title: str = "") -> Made:
    """`config` with settings replaced by their dotted names: `merge(config, {"learner.rate": 1e-3})`.

    A text is read as a `Text`: what the setting needs.
    """
    data = to_dict(config)
    for name, value in changes.items():
        *way, last = name.split(".")
        place = data
        for i, step in enumerate(way):
            if step in place and place[step] is None:
                place[step] = {}
            if not isinstance(place.get(step), dict):
                known = [key for key, inner in place.items() if isinstance(inner, dict)]
                raise ConfigError(f"no settings under `{'.'.join(way[: i + 1])}`.{nearest(step, known)}")
            place = place[step]
        place[last] = Text(value) if isinstance(value, str) else value
    return from_dict(type(config), data, title)


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """One line for each value of plain data that differs: `learner.rate: 0.001 before, 0.01 now`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{name}.{key}" if name else key)
    elif old != new or type(old) is not type(new):
        yield f"{name}: {say(old)} before, {say(new)} now"


class Text(str):
    """A value as somebody typed it on a command line: "1e-3", "true", "none", "[64, 64]"."""


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _made(make: Callable[..., Any], data: Any, title: str, prefix: str, base: Any = None) -> Any:
    """Made of `data`; where it is a part of other settings, `base` is their default for it."""
    if not isinstance(data, Mapping):
        raise _Mismatch
    known, hints = signature(make).parameters, get_type_hints(make)
    for name in data:
        if name not in known:
            raise ConfigError(f"unknown setting `{prefix}{name}` for {title}.{nearest(str(name), known)}")
    for name, parameter in known.items():
        if name not in data and parameter.default is parameter.empty and base is None:
            raise ConfigError(f"{title}: `{prefix}{name}` must be given, it has no default.")
    values: dict[str, Any] = {}
    for name, value in data.items():
        kind = hints.get(name, Any)
        try:
            if is_dataclass(kind) and isinstance(value, Mapping):
                part = _default(make, name) if base is None else getattr(base, name)
                values[name] = _made(kind, value, title, f"{prefix}{name}.", part)  # type: ignore[arg-type]
            else:
                values[name] = _value(kind, value, title, f"{prefix}{name}.")
        except _Mismatch:
            raise ConfigError(f"{prefix}{name} of {title}: expected {_name(kind)}, got {say(value)}.") from None
    return make(**values) if base is None else replace(base, **values)


def _default(make: Any, name: str) -> Any:
    """A dataclass's default for a part that is a dataclass; None where it has none."""
    part = next((f for f in fields(make) if f.name == name), None) if is_dataclass(make) else None
    if part is None or part.default_factory is MISSING:
        return None if part is None or part.default is MISSING else part.default
    return part.default_factory()


class _Mismatch(Exception):
    """The value is not of the type: said with the setting's name by whoever knows it."""


def _value(kind: Any, value: Any, title: str, prefix: str) -> Any:
    """`value` as a `kind`. JSON and TOML know lists only, and `1` for `1.0`; nothing else is converted."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, title, prefix)
    if isinstance(value, Text):
        value = str(value) if kind is str else _typed(value)
    if is_dataclass(kind):
        return value if isinstance(value, kind) else _made(kind, value, title, prefix)  # type: ignore[arg-type]
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inner):
            return value
        if isinstance(value, str):
            words = [c for c in inner if isinstance(c, str)]
            raise ConfigError(f"{prefix[:-1]} of {title}: got {say(value)}.{nearest(value, words)}")
        raise _Mismatch
    if kind is Any:
        return value
    if origin in (tuple, list) or kind in (tuple, list):
        return _sequence(origin or kind, inner, value, title, prefix)
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise _Mismatch
        of = inner[1] if inner else Any
        return {str(k): _value(of, v, title, f"{prefix}{k}.") for k, v in value.items()}
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:  # a whole number of more digits than a float can be
                raise _Mismatch from None
    elif kind in (str, int, bool, type(None)) and type(value) is kind:
        return value
    raise _Mismatch


def _typed(text: str) -> Any:
    """What a command line's text stands for, where the setting is not a plain text."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return str(text)


def _one_of(kinds: tuple[Any, ...], value: Any, title: str, prefix: str) -> Any:
    """The first kind that takes the value: its very type first (1 is an int before it is a float), text last."""
    refusal: ConfigError | None = None
    for kind in sorted(kinds, key=lambda kind: (type(value) is not kind, kind is str, kind is not type(None))):
        try:
            return _value(kind, value, title, prefix)
        except _Mismatch:
            continue
        except ConfigError as error:
            refusal = refusal or error
    raise refusal or _Mismatch


def _sequence(cls: type[Any], kinds: tuple[Any, ...], value: Any, title: str, prefix: str) -> Any:
    if isinstance(value, str) or not isinstance(value, tuple | list):
        raise _Mismatch
    if cls is list or not kinds or kinds[-1] is Ellipsis:
        kinds = (kinds[0] if kinds else Any,) * len(value)
    if len(kinds) != len(value):
        raise _Mismatch
    return cls(
        _value(kind, item, title, f"{prefix}{i}.") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _name(kind: Any) -> str:
    """A type in the words of whoever writes a settings file."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_name, get_args(kind)))
    if is_dataclass(kind):
        return "settings by name"
    if get_origin(kind) in (tuple, list) and get_args(kind):
        each = [_name(one) for one in get_args(kind) if one is not Ellipsis]
        count = "" if len(each) < len(get_args(kind)) or get_origin(kind) is list else f" of {len(each)}"
        return f"a list{count} ({', '.join(each) if count else f'each {each[0]}'})"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    return plain.get(kind, str(kind).removeprefix("typing."))


def say(value: Any) -> str:
    """A value in a message, not the whole of a long one."""
    text = repr(str(value) if isinstance(value, Text) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def at_least_one(config: Any, *names: str) -> None:
    """Raises ConfigError where one of these settings is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name}: got {getattr(config, name)}, but it must be 1 or more.")


def not_negative(config: Any, *names: str) -> None:
    """Raises ConfigError where one of these settings is below 0, infinite or NaN."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:  # NaN is refused too
            raise ConfigError(f"{name}: got {getattr(config, name)}, but it must be a finite number, 0 or more.")


def share(config: Any, *names: str, below: bool = False) -> None:
    """Raises ConfigError where one of these settings is outside of [0, 1], or with `below` of [0, 1)."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (below and value == 1):
            raise ConfigError(f"{name}: got {value}, but it must lie in [0, 1{')' if below else ']'}.")
