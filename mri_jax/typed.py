"""Values of JSON built into frozen dataclasses, each field checked against its annotation."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mri_jax.errors import UserError

T = TypeVar("T")
_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    type(None): "null",
}


def build(kind: type[T], value: Any, at: str) -> T:
    """Returns an instance of ``kind`` from a value of JSON.

    Args:
      kind: A dataclass, or an annotation of plain types: bool, int, float (takes whole numbers),
        str, tuples (of lists), mappings from str, unions, Any.
      value: What the JSON holds.
      at: Its place, for messages: ``store.json: grid``.

    Raises:
      UserError: A field is missing, unknown or of another type; it is named, with its value.
    """
    return _build(kind, value, at)


def _build(kind: Any, value: Any, at: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _instance(kind, value, at)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, at)
    if origin is tuple:
        return _tuple(inner, value, at)
    if isinstance(origin or kind, type) and issubclass(origin or kind, Mapping):
        if not isinstance(value, dict):
            _refuse(at, "an object", value)
        of = inner[1] if inner else Any
        return {name: _build(of, item, f"{at}.{name}") for name, item in value.items()}
    if kind is float and type(value) in (int, float):
        if abs(value) <= 1e300 and math.isfinite(value):
            return value  # as it stands there: fingerprints tell 4 from 4.0
    elif type(value) is kind:
        return value
    return _refuse(at, _NAMES[kind], value)


def _instance(kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        _refuse(at, "an object", value)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for name in value:
        if name not in fields:
            raise UserError(f"{at}.{name[:60]}: no such field")
    for name, field in fields.items():
        bare = dataclasses.MISSING
        if name not in value and field.default is bare and field.default_factory is bare:
            raise UserError(f"{at}.{name}: is missing")
    return kind(**{name: _build(hints[name], v, f"{at}.{name}") for name, v in value.items()})


def _one_of(kinds: tuple[Any, ...], value: Any, at: str) -> Any:
    said = []
    for kind in kinds:
        try:
            return _build(kind, value, at)
        except UserError as error:
            said.append(error)
    # What is wrong inside an object or a list says more than that it is not null.
    raise said[0] if isinstance(value, dict | list) else said[-1 if value is None else 0]


def _tuple(inner: tuple[Any, ...], value: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        _refuse(at, "a list", value)
    if len(inner) == 2 and inner[1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(value) != len(inner):
        _refuse(at, f"a list of {len(inner)}", value)
    pairs = enumerate(zip(inner, value, strict=True))
    return tuple(_build(kind, item, f"{at}[{i}]") for i, (kind, item) in pairs)


def _refuse(at: str, wanted: str, value: Any) -> typing.NoReturn:
    raise UserError(f"{at}: must be {wanted}, not {str(value)[:60]!r}")
