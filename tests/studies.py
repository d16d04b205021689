"""Configs of ``configs/`` with changes, and the studies that they are."""

import importlib
from typing import Any

from mri_jax.settings.study import Study


def config(of: str = "finetune_high", preset: str = "demo", **overrides: object) -> dict:
    """The nested mapping of ``configs/OF.py``; ``train__batch=4`` overrides a field."""
    found = importlib.import_module(f"configs.{of}").get_config(preset)
    with found.unlocked():
        for path, value in overrides.items():
            section, _, field = path.partition("__")
            if field:
                found[section][field] = value
            else:
                found[section] = value
    return found.to_dict()


def study(of: str = "finetune_high", preset: str = "demo", **overrides: object) -> Study:
    """The study of `config`."""
    return Study.parse(config(of, preset, **overrides))


def put(given: dict[str, Any], name: str, value: object) -> None:
    """Set a field as a config file can, past the types that ConfigDict keeps."""
    *sections, last = name.removeprefix("config.").split(".")
    for section in sections:
        given = given[section]
    given[last] = value
