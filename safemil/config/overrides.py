"""Settings: frozen dataclasses whose every field carries its meaning and range, and overrides by dotted name.

Comes in: ``{"cost_model.bag_size": "64"}`` (from a preset, a grid or the command line). Goes out: a new configuration,
every value converted to its field's type and checked against its range. Order of precedence: default, preset, grid,
command line; the later one wins even where it repeats the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from safemil.config.errors import UserError

Config = TypeVar("Config")


class ConfigError(UserError):
    """A setting that does not exist, or a value of the wrong type or out of range."""


def setting(default: Any, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A field of a configuration: its default, its meaning and its closed range."""
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low, "high": high})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every configuration: checks the ranges once, at construction."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, (int, float)):
                    check_range(field, number)


def check_range(field: dataclasses.Field, number: float) -> None:
    """Raise ``ConfigError`` unless ``number`` lies in the field's closed range (NaN never does)."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    below, above = low is not None and not number >= low, high is not None and not number <= high
    if below or above:
        limits = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise ConfigError(f"{field.name}={number!r}: expected {limits} ({field.metadata['doc']})")


@functools.cache
def field_types(config_class: type) -> dict[str, Any]:
    """Field name -> resolved type."""
    return typing.get_type_hints(config_class)


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """The words after ``--set``: ``["a.b=1"]`` -> ``{"a.b": "1"}``."""
    settings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"--set {assignment}: expected KEY=VALUE, for example cost_model.bag_size=64")
        settings[name] = value
    return settings


def from_text(text: str) -> Any:
    """A command line's text as JSON where it is JSON (``1e5``, ``true``, ``256,256``), else as it stands (``full``)."""
    try:
        return json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except json.JSONDecodeError:
        return text


def convert(annotation: Any, value: Any) -> Any:
    """``value`` as the annotated type.

    Raises:
        ConfigError: it is of another type.
    """
    from pydantic import TypeAdapter, ValidationError  # only where settings arrive as text, never in a learner

    parsed = from_text(value) if isinstance(value, str) else value
    if typing.get_origin(annotation) is tuple and isinstance(parsed, int):
        parsed = [parsed]
    try:
        if isinstance(parsed, bool) and annotation is not bool:
            raise ConfigError(f"{value!r}: expected {getattr(annotation, '__name__', annotation)}")
        return TypeAdapter(annotation).validate_python(parsed)
    except ValidationError as error:
        problems = list(dict.fromkeys(problem["msg"] for problem in error.errors()))
        raise ConfigError(f"{value!r}: {'; or '.join(problems)}") from None


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """``config`` with the dotted names replaced.

    Raises:
        ConfigError: an unknown name (with the nearest valid ones), a wrong type or a value out of range.
    """
    for name, value in overrides.items():
        if name not in dotted_fields(config):
            raise ConfigError(unknown_setting(name, dotted_fields(config)))
        config = _replace(config, name.split("."), value, name)
    return config


def _replace(config: Any, path: list[str], value: Any, name: str) -> Any:
    head, rest = path[0], path[1:]
    if rest:
        return dataclasses.replace(config, **{head: _replace(getattr(config, head), rest, value, name)})
    try:
        return dataclasses.replace(config, **{head: convert(field_types(config.__class__)[head], value)})
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def unknown_setting(name: str, valid: Iterable[str]) -> str:
    """The message for a name that no configuration has."""
    near = difflib.get_close_matches(name, list(valid), n=3, cutoff=0.5)
    return f"unknown setting {name!r}" + (f"; nearest: {', '.join(near)}" if near else "")


def dotted_fields(config: Any, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Dotted name -> field, for every leaf of a configuration."""
    leaves: dict[str, dataclasses.Field] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            leaves.update(dotted_fields(value, f"{prefix}{field.name}."))
        else:
            leaves[f"{prefix}{field.name}"] = field
    return leaves


def configure(config: Any, settings: dict[str, Any]) -> Any:
    """``config`` with settings by keyword: a dotted name with ``__`` for its dots, or its last part, which then holds
    for every setting so called (``steps=500``).

    Raises:
        ConfigError: an unknown name (with the nearest valid ones), a wrong type or a value out of range.
    """
    known = dotted_fields(config)
    for keyword, value in settings.items():
        name = keyword.replace("__", ".")
        meant = [name] if name in known else [field for field in known if field.rpartition(".")[2] == keyword]
        if not meant:
            raise ConfigError(unknown_setting(name, [*known, *(field.rpartition(".")[2] for field in known)]))
        config = override(config, dict.fromkeys(meant, value))
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain nested values, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def fingerprint(value: Any) -> str:
    """Eight hexadecimal digits that change whenever any setting does."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def known_settings(values: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Stored settings by dotted name, those that this version still has."""
    known = dotted_fields(config)
    return {name: value for name, value in flatten(values).items() if name in known}
