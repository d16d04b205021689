"""Every config in every preset, as it was before the fields owned their defaults.

A tuple is written as ``{"tuple": [...]}``; JSON itself tells 1 from 1.0 and from true.
"""

import importlib
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("recorded_configs.json")


def typed(value: Any) -> Any:
    """Returns a value of a config in JSON types that tell tuples from lists."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [typed(item) for item in value]}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return value


def resolved(name: str, preset: str) -> dict[str, Any]:
    """Returns a config of ``configs/`` in a preset, in typed JSON."""
    return typed(importlib.import_module(f"configs.{name}").get_config(preset).to_dict())


def recorded() -> dict[str, dict[str, Any]]:
    """Returns the recorded configs, by ``NAME:PRESET``."""
    return json.loads(PATH.read_text(encoding="utf-8"))
