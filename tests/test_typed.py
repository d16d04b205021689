"""Values of JSON that have the types of the fields, and none that have not."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from mri_jax.errors import UserError
from mri_jax.typed import build


@dataclass(frozen=True)
class Inner:
    low: float
    high: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    n: int
    flag: bool
    shape: tuple[int, int]
    rates: tuple[float, ...]
    inner: Inner
    ages: tuple[float, float] | None
    more: Mapping[str, float]


GOOD = {
    "name": "x",
    "n": 3,
    "flag": True,
    "shape": [1, 2],
    "rates": [0.5, 1],
    "inner": {"low": 0},
    "ages": None,
    "more": {"a": 1.5},
}


def test_json_becomes_the_dataclass():
    assert build(Outer, GOOD, "f") == Outer(
        "x", 3, True, (1, 2), (0.5, 1), Inner(0, 1.0), None, {"a": 1.5}
    )
    assert build(Outer, GOOD | {"ages": [1, 2.5]}, "f").ages == (1, 2.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "f.name: must be a text, not '3'"),
        ({"n": True}, "f.n: must be a whole number, not 'True'"),
        ({"n": 3.0}, "f.n: must be a whole number"),
        ({"n": "3"}, "f.n: must be a whole number"),
        ({"flag": 1}, "f.flag: must be true or false"),
        ({"shape": [1, 2, 3]}, "f.shape: must be a list of 2"),
        ({"shape": [1, "2"]}, "f.shape[1]: must be a whole number"),
        ({"shape": "12"}, "f.shape: must be a list"),
        ({"rates": [float("nan")]}, "f.rates[0]: must be a finite number"),
        ({"rates": [10**400]}, "f.rates[0]: must be a finite number"),
        ({"inner": []}, "f.inner: must be an object"),
        ({"inner": {}}, "f.inner.low: is missing"),
        ({"inner": {"low": 0, "odd": 1}}, "f.inner.odd: no such field"),
        ({"ages": [1]}, "f.ages: must be a list of 2"),
        ({"ages": 7}, "f.ages: must be a list"),
        ({"more": {"a": "b"}}, "f.more.a: must be a finite number"),
    ],
)
def test_a_value_of_another_type_is_named(change: dict, said: str):
    with pytest.raises(UserError) as caught:
        build(Outer, GOOD | change, "f")
    assert str(caught.value).startswith(said)


def test_a_missing_field_is_named():
    with pytest.raises(UserError, match=r"f\.name: is missing"):
        build(Outer, {k: v for k, v in GOOD.items() if k != "name"}, "f")
