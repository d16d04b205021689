import dataclasses
import json

import jax
import pytest

from mri_jax.planning import description
from mri_jax.planning.description import FIELDS, Fields, describe
from mri_jax.training.step import NUMERICS_VERSION
from tests.planning import recorded
from tests.planning.test_plan import fingerprints, plan_of
from tests.tiny import make_cohorts

RECORDED = json.loads(recorded.PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", RECORDED)
def test_stages_of_earlier_versions_are_found_again(case):
    found, known = recorded.fingerprints(RECORDED[case]["config"]), RECORDED[case]["fingerprints"]
    assert {version: found[version] for version in known} == known
    assert str(NUMERICS_VERSION) in known


def test_every_class_of_settings_is_listed_field_by_field():
    for kind, listed in FIELDS.items():
        names = {f.name for f in dataclasses.fields(kind)}
        assert names == {*listed.always, *listed.later}, kind.__name__
        assert not names & set(listed.retired), kind.__name__


@dataclasses.dataclass(frozen=True)
class Before:
    rate: float = 0.1
    dead: str = "none"


@dataclasses.dataclass(frozen=True)
class After:
    rate: float = 0.2
    steps: int = 0


def test_a_new_field_at_its_value_and_a_retired_one_change_nothing(monkeypatch):
    monkeypatch.setitem(FIELDS, Before, Fields(("rate", "dead")))
    monkeypatch.setitem(FIELDS, After, Fields(("rate",), {"steps": 0}, {"dead": "none"}))
    assert describe(After(rate=0.1)) == describe(Before()) == {"rate": 0.1, "dead": "none"}
    assert describe(After(rate=0.1, steps=5)) == {"rate": 0.1, "dead": "none", "steps": 5}
    assert describe((Before(rate=0.3),)) == [{"rate": 0.3, "dead": "none"}]


@pytest.mark.parametrize("listed", [Fields(("rate",)), Fields(("rate", "steps", "gone"))])
def test_a_field_that_is_not_listed_is_an_error(monkeypatch, listed):
    monkeypatch.setitem(FIELDS, After, listed)
    with pytest.raises(TypeError, match=r"After\.(steps|gone): is not as"):
        describe(After())


def test_switches_of_jax_that_change_numbers_give_networks_other_names(tmp_path):
    cohorts = make_cohorts(tmp_path, subjects=15)
    usual, _ = plan_of(cohorts)
    assert description.switches() == {}
    with jax.threefry_partitionable(False):
        assert description.switches() == {"jax_threefry_partitionable": False}
        other, _ = plan_of(cohorts)
    for kind in ("source", "tune", "evaluate"):
        assert not fingerprints(usual, kind) & fingerprints(other, kind)
    assert fingerprints(usual, "baseline") == fingerprints(other, "baseline")
