"""Reads a config file, which is a program that makes a ``ConfigDict``."""

import os
import runpy
import traceback
from typing import Any

from mri_jax.errors import UserError

_SHOWN = 300


def fields_of(config: str) -> dict[str, Any]:
    """Returns the fields of ``FILE[:PRESET]``, nested.

    Raises:
      UserError: The file is absent, or ends in an error, which may be any.
    """
    path, _, preset = config.partition(":")
    if not os.path.isfile(path):
        raise UserError(f"--config: {path}: no such file")
    try:
        return runpy.run_path(path)["get_config"](*filter(None, [preset])).to_dict()
    except Exception as error:
        told = cut(traceback.format_exception_only(error)[-1])
        raise UserError(f"--config: {path}: {told}") from None


def cut(text: str) -> str:
    """Returns what an error says in one line, of at most 300 characters."""
    text = " ".join(text.removeprefix("ValueError: ").split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
