"""JSON from outside: parsed only where every reader would take it for the same value."""

import json
import math
import re
from typing import Any, NoReturn

from mri_jax.errors import UserError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NAMES: dict[Any, str] = {dict: "an object", list: "a list", str: "a text"}


def parse(text: str, source: str, kind: type = object, nan: bool = False) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: The text.
      source: What to call it in errors.
      kind: What it must hold at its top: dict, list, or any.
      nan: Whether NaN and infinities are accepted, as lines of a history have them.

    Raises:
      UserError: It is no JSON, is nested too deeply, repeats a key of an object, holds a number
        that is none (NaN, Infinity, thousands of digits) or half a character, or is no ``kind``.
    """

    def refuse(what: str) -> NoReturn:
        raise UserError(f"{source}: is not valid JSON ({what})")

    def number(digits: str) -> float:
        value = float(digits)
        if not (nan or math.isfinite(value)):
            refuse(f"{digits[:20]} is no finite number")
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            refuse(f"key {next(n for n in names if names.count(n) > 1)[:60]!r} occurs twice")
        return found

    try:
        value = json.loads(
            text,
            parse_float=number,
            parse_constant=number,
            object_pairs_hook=unique,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        refuse("nested too deeply")
    except UnicodeEncodeError:
        refuse("half a character (a lone surrogate)")
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        refuse(str(error).split(";")[0])
    if not isinstance(value, kind):
        found = _NAMES.get(type(value), str(value)[:40])
        raise UserError(f"{source}: must hold {_NAMES[kind]}, not {found}")
    return value
