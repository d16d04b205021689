"""Rules for the fields of a config, which are declared beside each field and checked in one place.

A section of a config is a frozen dataclass whose fields are made by `field` (a rule and a line of
documentation) or are sections themselves; `read` turns a mapping into it.
"""

import dataclasses
import difflib
import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from mri_jax.errors import UserError

T = TypeVar("T")
ROOT = "config"
"""What stands before the names of fields, in messages and on the command line."""
# Fields of earlier versions, and what is there in their place.
RETIRED = {"model.form": "--forms (launch.py --help) chooses how conv layers are computed"}
# Characters of a value that a message shows.
_SHOWN = 80


class Rule(Protocol):
    """What a value must be; its text completes the sentence "VALUE must be ...".

    A rule never raises, whatever it is asked about.
    """

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""

    def __str__(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number in a closed range; True and 3.0 are none."""

    least: int
    most: int

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return type(value) is int and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number from ``least`` to ``most``; ``open_least``, ``open_most``: without them."""

    least: float
    most: float
    open_least: bool = False
    open_most: bool = False

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.least <= value <= self.most:  # NaN is in no range
            return False
        return not (self.open_least and value == self.least) and not (
            self.open_most and value == self.most
        )

    def __str__(self) -> str:
        if self.open_least:
            return f"a number above {self.least:g}, at most {self.most:g}"
        if self.open_most:
            return f"a number from {self.least:g} to below {self.most:g}"
        return f"a number from {self.least:g} to {self.most:g}"


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False; 0 and 1 are none."""

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "True or False"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few texts."""

    options: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return isinstance(value, str) and value in self.options

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.options))}"


@dataclasses.dataclass(frozen=True)
class Joined:
    """A text of its own, or several distinct names with commas between them."""

    alone: tuple[str, ...]
    names: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        if not isinstance(value, str):
            return False
        parts = [part.strip() for part in value.split(",")]
        return value in self.alone or (
            set(parts) <= set(self.names) and len(set(parts)) == len(parts)
        )

    def __str__(self) -> str:
        alone = ", ".join(map(repr, self.alone))
        return f"one of {alone}, or some of {', '.join(self.names)} with commas between them"


@dataclasses.dataclass(frozen=True)
class Text:
    """A line of text without control characters; ``empty``: it may have none at all."""

    longest: int = 200
    empty: bool = False

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        if not isinstance(value, str) or len(value) > self.longest:
            return False
        # Cc are control characters, Cs halves of characters that no file can hold.
        plain = all(unicodedata.category(c) not in ("Cc", "Cs") for c in value)
        return plain and (self.empty or bool(value.strip()))

    def __str__(self) -> str:
        kind = "text" if self.empty else "text that is not empty,"
        return f"{kind} of at most {self.longest} characters, none of them a control character"


@dataclasses.dataclass(frozen=True)
class Many:
    """A sequence; ``distinct``: nothing stands in it twice, ``rising``: each more than the last."""

    of: Rule
    least: int
    most: int
    distinct: bool = False
    rising: bool = False

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        if not isinstance(value, list | tuple) or not self.least <= len(value) <= self.most:
            return False
        if not all(self.of.holds(item) for item in value):
            return False
        if self.distinct and len(set(value)) < len(value):
            return False
        return not self.rising or all(a < b for a, b in itertools.pairwise(value))

    def __str__(self) -> str:
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        kind = "distinct values" if self.distinct else "values"
        order = " in rising order" if self.rising else ""
        return f"a tuple of {count} {kind}{order}, each {self.of}"


@dataclasses.dataclass(frozen=True)
class Either:
    """What one of two rules allows."""

    first: Rule
    other: Rule

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return self.first.holds(value) or self.other.holds(value)

    def __str__(self) -> str:
        return f"{self.first}, or {self.other}"


@dataclasses.dataclass(frozen=True)
class Exactly:
    """One number alone."""

    number: int

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return type(value) is int and value == self.number

    def __str__(self) -> str:
        return str(self.number)


@dataclasses.dataclass(frozen=True)
class Overrides:
    """A dictionary of fields."""

    def holds(self, value: Any) -> bool:
        """Returns whether a value keeps the rule."""
        return isinstance(value, Mapping)

    def __str__(self) -> str:
        return "a dictionary of fields of this config"


def field(
    rule: Rule, about: str, default: Any, before: Any = dataclasses.MISSING, free: bool = False
) -> Any:
    """Declares a field of a section.

    Args:
      rule: What its values must be.
      about: One line of documentation.
      default: Its value in a new config.
      before: Its value in a config that lacks it, because it was written before the field was
        there: the value at which results are those of then. Without one it must not be absent.
      free: Whether it changes how a study runs and never what it finds.
    """
    metadata = {"rule": rule, "about": about, "before": before, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


def read(kind: type[T], values: Any, at: str) -> T:
    """Check a mapping against a section, field by field.

    Args:
      kind: The section.
      values: What a config holds there.
      at: Its name, e.g. ``config.train``.

    Returns:
      The section, in which every sequence is a tuple.

    Raises:
      UserError: A field is unknown, absent or breaks its rule; field, value and rule are named.
    """
    known = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise UserError(f"{at}: {shown(values)} must be a section with {', '.join(known)}")
    for name in values:
        if name not in known:
            raise UserError(unknown_field(f"{at}.{name}", [f"{at}.{each}" for each in known]))
    found: dict[str, Any] = {}
    for name, each in known.items():
        place = f"{at}.{name}"
        if name not in values:
            if each.metadata.get("before", dataclasses.MISSING) is dataclasses.MISSING:
                raise UserError(f"{place}: is missing")
            found[name] = each.metadata["before"]
            continue
        if (inside := _section(each)) is not None:
            found[name] = read(inside, values[name], place)
            continue
        value, rule = values[name], each.metadata["rule"]
        if not rule.holds(value):
            raise UserError(f"{place}: {_broken(rule, value)}")
        found[name] = _tuples(value)
    return kind(**found)


def _broken(rule: Rule, value: Any) -> str:
    """Returns which value breaks a rule: of names that are to be chosen, the first that is none."""
    if isinstance(rule, Many) and isinstance(rule.of, Choice) and isinstance(value, list | tuple):
        for item in value:
            if not rule.of.holds(item):
                near = difflib.get_close_matches(str(item), rule.of.options, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                return f"{shown(item)} must be {rule.of}{hint}"
    return f"{shown(value)} must be {rule}"


def _tuples(value: Any) -> Any:
    """Returns a value whose sequences are tuples, as those of JSON are not."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


@contextmanager
def naming_fields_of(at: str) -> Iterator[None]:
    """Put the section before the field that an error begins with."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{at}.{error}") from None


def flat(values: Any, at: str = "") -> dict[str, Any]:
    """Returns nested values by their whole names (``train.batch``, ``variants.0.model.width``)."""
    if isinstance(values, list | tuple) and any(isinstance(item, Mapping) for item in values):
        values = dict(enumerate(values))
    if isinstance(values, Mapping) and values:
        found: dict[str, Any] = {}
        for name, item in values.items():
            found |= flat(item, f"{at}{name}.")
        return found
    return {at[:-1]: list(values) if isinstance(values, tuple) else values}


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Returns the message for a field that does not exist, with the nearest one, or with all."""
    for retired, instead in RETIRED.items():
        if name.endswith(f".{retired}"):
            return f"{_cut(name)}: is no field any more; {instead}"
    section, _, last = name[:200].rpartition(".")
    beside = [_last(each) for each in known if each.rpartition(".")[0] == section]
    elsewhere = [each for each in known if _last(each) == last]
    initials = {"".join(word[:1] for word in each.split("_")): each for each in beside}
    # lr is learning_rate.
    # epochs is min_epochs or max_epochs.
    near = [each for each in beside if last in each.split("_")]
    near = near or difflib.get_close_matches(initials.get(last, last), beside, n=1)
    if near:
        hint = f"did you mean {' or '.join(f'{section}.{each}' for each in near)}?"
    elif beside and not elsewhere:
        hint = f"{section} has {', '.join(beside)}"
    else:
        near = difflib.get_close_matches(name[:200], elsewhere or known, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}?" if near else "there is none"
    return f"{_cut(name)}: no such field; {hint}"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def shown(value: Any) -> str:
    """Returns a value as a message shows it: in one line, cut short."""
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"a text of {len(value)} characters"
    try:
        return _cut(repr(value))
    except (ValueError, RecursionError):  # an integer of many digits; lists in lists without end
        return f"a value of type {type(value).__name__}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _section(each: dataclasses.Field) -> type | None:
    """Returns the section that a field is; None where it has a rule."""
    return each.type if isinstance(each.type, type) and "rule" not in each.metadata else None


def leaves(kind: type, at: str = ROOT) -> list[tuple[str, Rule, str]]:
    """Returns (name, rule, documentation) of every field of a section and of those inside it."""
    return [(name, each.metadata["rule"], each.metadata["about"]) for name, each in _all(kind, at)]


def free(kind: type) -> set[str]:
    """Returns the names of the fields that never change what a study finds."""
    return {name for name, each in _all(kind, "") if each.metadata["free"]}


def _all(kind: type, at: str) -> list[tuple[str, dataclasses.Field]]:
    found: list[tuple[str, dataclasses.Field]] = []
    for each in dataclasses.fields(kind):
        place = f"{at}.{each.name}" if at else each.name
        inside = _section(each)
        found += [(place, each)] if inside is None else _all(inside, place)
    return found
