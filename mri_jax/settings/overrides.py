"""The fields of a config on a command line: says in one line what is wrong with them.

``ml_collections`` reads them, and tells its mistakes in words of Python; it also joins the tuples
of a field that is given twice.
"""

import ast
import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mri_jax.errors import UserError
from mri_jax.settings.config_file import cut, fields_of
from mri_jax.settings.fields import ROOT, leaves, shown, unknown_field
from mri_jax.settings.study import Study

_BEFORE = f"{ROOT}."
_UNREAD = re.compile(r"^flag --(?P<name>[\w.]+)=(?P<value>.*?): (?P<why>.*)", re.DOTALL)
_UNKNOWN = re.compile(r"^Unknown command line flag '(.*?)'")


def given(argv: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (name, value as text) of every field on a command line, in order."""
    found = []
    for place, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name.startswith(_BEFORE):
            following = argv[place + 1] if place + 1 < len(argv) else ""
            found.append((name, value if equals else following))
    return found


def wrong(argv: Sequence[str], config: Mapping[str, Any]) -> str:
    """Returns what is wrong with the fields on a command line; empty where nothing is.

    Args:
      argv: The command line.
      config: The config that they override, nested.
    """
    known, fields = dict(_leaves(config)), given(argv)
    sections = {name for name, value in known.items() if isinstance(value, Mapping)}
    for name, text in fields:
        if name not in known:
            return unknown_field(name, [each for each in known if each not in sections])
        if name in sections:
            inside = [each for each in known if each.startswith(f"{name}.")]
            return f"{name}: is a section; give a field of it: {', '.join(inside)}"
        # A flag that is True or False may stand alone.
        if text.startswith("--") and not isinstance(known[name], bool):
            return f"{name}: has no value; write --{name}=VALUE"
        if name == "config.sites.minimum" and text.strip() == "0":
            return (
                f"{name}: 0 leaves no site out, which is another study (configs/baseline.py); 1 "
                "leaves out every site that has both classes"
            )
        if isinstance(known[name], list | tuple):
            texts = [value for other, value in fields if other == name]
            if len(texts) > 1:
                rule = "must be given once, as one tuple"
                return f"{name}: is given {len(texts)} times ({', '.join(texts)}); it {rule}"
            if text.strip()[:1] in ("(", "[") and not _is_literal(text):
                quoted = "texts in it stand in quotation marks, all of it in those of the shell"
                return f"{name}: {shown(text)} must be a tuple; {quoted}: \"--{name}=('A','B')\""
    return ""


def mistake(argv: Sequence[str], error: Exception, flags: Sequence[str]) -> str:
    """Returns the line that names the field or flag with which a command line failed.

    Args:
      argv: The command line.
      error: What ``ml_collections`` or absl raised, which tell it in many lines.
      flags: Names of the flags that there are besides the fields.
    """
    options = dict(a.lstrip("-").partition("=")[::2] for a in argv if a.startswith("-"))
    if config := options.get("config"):
        try:
            if told := wrong(argv, fields_of(config)):
                return told
        except UserError as why:
            return str(why)
    if told := plainly(str(error), flags):
        return cut(told)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in reversed(lines) if "Error: " in line), (lines or [repr(error)])[0]
    )
    return cut(re.sub(r"^\w+Error: ", "", told))


def plainly(message: str, flags: Sequence[str]) -> str:
    """Returns a message of absl about the command line in plain words; empty if it is no such.

    Args:
      message: The message.
      flags: Names of the flags that there are besides the fields.
    """
    if unknown := _UNKNOWN.match(message):
        near = difflib.get_close_matches(unknown[1].partition(".")[0], [*flags, ROOT], n=1)
        hint = f"; did you mean --{near[0]}?" if near else "; --help lists those there are"
        return f"--{unknown[1]}: no such flag{hint}"
    if (unread := _UNREAD.match(message)) is None:
        return ""
    rules = {name: str(rule) for name, rule, _ in leaves(Study)}
    name, value = unread["name"], shown(unread["value"])
    if name in rules:
        return f"{name}: {value} must be {rules[name]}"
    if "invalid literal for int" in unread["why"]:
        return f"--{name}: {value} must be a whole number"
    return f"--{name}: {value}: {unread['why']}"


def _is_literal(text: str) -> bool:
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        ast.literal_eval(text)
        return True
    return False


def _leaves(values: Mapping[str, Any], at: str = _BEFORE) -> list[tuple[str, Any]]:
    """Returns (name, value) of every section and field, ``config.`` in front."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found.append((f"{at}{name}", value))
        if isinstance(value, Mapping):
            found += _leaves(value, f"{at}{name}.")
    return found
