"""The space of a search: lines of a config, each a field with its type and bounds.

::

    {"field": "train.learning_rate", "type": "float", "low": 1e-5, "high": 1e-3, "log": True}
    {"field": "train.batch", "type": "int", "low": 2, "high": 8, "step": 2}
    {"field": "model.attention", "type": "choice", "options": ("none", "se", "spatial")}
    {"field": "model.attention_blocks", "type": "choice", "options": ((5,), (4, 5)),
     "when": {"model.attention": ("se", "spatial")}}

A line with ``when`` is drawn only where the fields of lines before it have one of those values.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mri_jax.errors import UserError
from mri_jax.settings.fields import ROOT, Number, Rule, Whole, shown, unknown_field
from mri_jax.settings.sections import Model

SECTIONS = ("model", "train", "augment")
"""Whose fields may be searched."""
BLOCKS = "model.blocks"
"""How many blocks there are of ``model.repetitions`` and ``model.filters``: these are cut to it, or
their last number is repeated."""
_DROPOUT, _FC, _PRESET = "model.dropout", "model.fc", "model.preset"
_SHAPE = (BLOCKS, "model.repetitions", "model.filters")
# Lines may give these one number: blocks are no field, and a rate of dropout holds for all layers.
_NUMBERS: dict[str, Rule] = {BLOCKS: Whole(1, 10), _DROPOUT: Number(0, 1, open_most=True)}
# Folds of a trial are those of the search.
_NOT = ("train.folds",)
_KINDS = {"float": ("low", "high", "log", "points"), "int": ("low", "high", "log", "step")}


@dataclasses.dataclass(frozen=True)
class Line:
    """A field that a search varies.

    Attributes:
      field: Its name without the root: ``train.batch``; or `BLOCKS`.
      type: ``float``, ``int`` or ``choice``.
      low: Least number.
      high: Largest number.
      log: Whether numbers are drawn on a logarithmic scale.
      step: Between whole numbers.
      points: Values on a grid, of a ``float``.
      options: Values of a ``choice``.
      when: Values of fields of earlier lines at which it is drawn; empty: always.
    """

    field: str
    type: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    step: int = 1
    points: int = 0
    options: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    def drawn(self, values: Mapping[str, Any]) -> bool:
        """Returns whether it is drawn beside values of earlier lines."""
        return all(name in values and values[name] in among for name, among in self.when.items())

    @property
    def grid(self) -> tuple[Any, ...]:
        """Its values on a grid."""
        if self.type == "choice":
            return self.options
        if self.type == "int":
            return tuple(range(int(self.low), int(self.high) + 1, self.step))
        shares = [k / max(1, self.points - 1) for k in range(self.points)]
        if self.log:
            return tuple(self.low * (self.high / self.low) ** share for share in shares)
        return tuple(self.low + (self.high - self.low) * share for share in shares)


def lines_of(space: Sequence[Mapping[str, Any]], known: Mapping[str, Rule]) -> tuple[Line, ...]:
    """Returns the lines of a space.

    Args:
      space: What the config holds.
      known: The rule of every field of a study, by its name without the root.

    Raises:
      UserError: A line names no field or one that cannot be searched, or has no type, no bounds,
        bounds the wrong way round, or values that the field cannot have.
    """
    lines: list[Line] = []
    for number, given in enumerate(space):
        at = f"{ROOT}.search.space[{number}]"
        lines.append(_line(given, known, lines, at))
    names = {line.field for line in lines}
    if _PRESET in names and names & set(_SHAPE):
        raise UserError(
            f"{ROOT}.search.space: {_PRESET} and {min(names & set(_SHAPE))} both say how many "
            "layers there are; leave one of them out"
        )
    return tuple(lines)


def _line(
    given: Mapping[str, Any], known: Mapping[str, Rule], before: Sequence[Line], at: str
) -> Line:
    keys = [each.name for each in dataclasses.fields(Line)]
    for key in given:
        if key not in keys:
            raise UserError(f"{at}.{key}: no such part of a line; it has {', '.join(keys)}")
    name, kind = given.get("field"), given.get("type")
    if not isinstance(name, str) or name not in (*known, BLOCKS):
        every = [f"{ROOT}.{each}" for each in (*known, BLOCKS)]
        raise UserError(f"{at}.field: {unknown_field(f'{ROOT}.{name}', every)}")
    if name.partition(".")[0] not in SECTIONS or name in _NOT:
        raise UserError(
            f"{at}.field: {name} is not searched; fields of {', '.join(SECTIONS)} are, but for "
            f"{', '.join(_NOT)} ({ROOT}.search.folds)"
        )
    if name in {line.field for line in before}:
        raise UserError(f"{at}.field: {name} stands in the space twice")
    if kind not in (*_KINDS, "choice"):
        raise UserError(f"{at}.type: {shown(kind)} must be one of 'float', 'int', 'choice'")
    usable = {"field", "type", "when", *_KINDS.get(kind, ("options",))}
    for key in given:
        if key not in usable:
            raise UserError(f"{at}.{key}: a line of type {kind!r} has none")
    rule = known[name] if name in known else _NUMBERS[name]
    if kind == "int" and isinstance(_NUMBERS.get(name, rule), Number):
        raise UserError(f"{at}.type: 'int' must be 'float': {ROOT}.{name} must be {rule}")
    line = Line(**{**given, "when": _when(given.get("when", {}), before, at)})
    if kind == "choice":
        _check_options(line, rule, at)
    else:
        _check_bounds(line, given, _NUMBERS.get(name, rule), at)
    return line


def _check_options(line: Line, rule: Rule, at: str) -> None:
    options = line.options
    if not isinstance(options, list | tuple) or not options:
        raise UserError(f"{at}.options: {shown(options)} must be a tuple of at least one value")
    also = _NUMBERS.get(line.field)
    for option in options:
        if not (rule.holds(option) or (also is not None and also.holds(option))):
            raise UserError(f"{at}.options: {shown(option)}: {ROOT}.{line.field} must be {rule}")
    if any(a == b for a, b in itertools.combinations(options, 2)):
        raise UserError(f"{at}.options: {shown(options)} has a value twice")


def _check_bounds(line: Line, given: Mapping[str, Any], rule: Rule, at: str) -> None:
    whole = line.type == "int"
    for name in ("low", "high"):
        bound = getattr(line, name)
        if not isinstance(bound, int | float) or isinstance(bound, bool) or math.isnan(bound):
            told = "is missing" if name not in given else f"{shown(bound)} must be a number"
            raise UserError(f"{at}.{name}: {told}")
        if whole and bound != int(bound):
            raise UserError(f"{at}.{name}: {bound} must be a whole number for type 'int'")
        if not rule.holds(int(bound) if whole else float(bound)):
            raise UserError(f"{at}.{name}: {bound}: {ROOT}.{line.field} must be {rule}")
    if not line.low < line.high:
        raise UserError(f"{at}: low, {line.low}, must be below high, {line.high}")
    if not isinstance(line.log, bool):
        raise UserError(f"{at}.log: {shown(line.log)} must be True or False")
    if line.log and line.low <= 0:
        raise UserError(f"{at}.low: {line.low} must be above 0 where log is True")
    if type(line.step) is not int or line.step < 1:
        raise UserError(f"{at}.step: {shown(line.step)} must be a whole number from 1")
    if line.log and line.step > 1:
        raise UserError(f"{at}.step: {line.step} must be left out where log is True")
    if type(line.points) is not int or line.points < 0 or line.points == 1:
        raise UserError(f"{at}.points: {shown(line.points)} must be 0 or a whole number from 2")


def _when(given: Any, before: Sequence[Line], at: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, Mapping):
        raise UserError(f"{at}.when: {shown(given)} must be a dictionary of fields and values")
    earlier = {line.field: line for line in before}
    found: dict[str, tuple[Any, ...]] = {}
    for name, values in given.items():
        if name not in earlier:
            raise UserError(f"{at}.when: {name} is the field of no line before this one")
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f"{at}.when: {name}: {shown(values)} must be a tuple of values")
        line = earlier[name]
        if line.type == "float":
            raise UserError(f"{at}.when: {name} is a 'float', which has no single values")
        for value in values:
            if value not in line.grid:
                raise UserError(f"{at}.when: {name} never is {shown(value)}")
        found[name] = tuple(values)
    return found


def grid_of(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Yields every point of the grid of a space, each with the fields that are drawn there."""

    def points(rest: Sequence[Line], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield values
            return
        first, *others = rest
        if not first.drawn(values):
            yield from points(others, values)
            return
        for value in first.grid:
            yield from points(others, {**values, first.field: value})

    return points(lines, {})


def overrides(values: Mapping[str, Any], model: Model) -> dict[str, dict[str, Any]]:
    """Returns the fields of a study that a point of a space sets, nested.

    Args:
      values: A value for each drawn field.
      model: The network without them.

    Returns:
      Repetitions and filters have `BLOCKS` blocks; a single rate of dropout is that before every FC
      layer but the last, and rates follow the number of FC layers where that is searched.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, last = name.partition(".")
        found.setdefault(section, {})[last] = value
    own = found.get("model", {})
    if set(values) & set(_SHAPE):
        repetitions = own.get("repetitions", model.spec.repetitions)
        filters, blocks = own.get("filters", model.filters), own.pop("blocks", len(repetitions))
        own |= {
            "preset": "",
            "repetitions": _of_length(repetitions, blocks),
            "filters": _of_length(filters, blocks),
        }
    if {_DROPOUT, _FC} & set(values):
        hidden = len(own.get("fc", model.fc))
        rates = own.get("dropout", model.dropout)
        if isinstance(rates, int | float):
            rates = (float(rates),)
        if len(rates) != hidden + 1:
            rates = (*(rates[0],) * hidden, 0.0) if hidden else (rates[0],)
        own["dropout"] = tuple(rates)
    return found


def _of_length(numbers: Sequence[int], length: int) -> tuple[int, ...]:
    return (*numbers[:length], *(numbers[-1],) * (length - len(numbers)))
