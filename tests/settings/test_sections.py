import subprocess
import sys

import pytest

from mri_jax.settings.generated import config_dict
from mri_jax.settings.page import page
from tests.conftest import ROOT
from tests.settings.recorded import recorded, resolved, typed

RECORDED = recorded()


@pytest.mark.parametrize("config", RECORDED)
def test_a_config_holds_what_it_held_before_value_and_type(config):
    found = resolved(*config.split(":"))
    assert repr(found) == repr(RECORDED[config])


def test_typed_values_tell_what_json_does_not():
    assert typed({"a": (1, [2.0])}) == {"a": {"tuple": [1, [2.0]]}}
    assert repr(typed({"a": 1})) != repr(typed({"a": 1.0})) != repr(typed({"a": True}))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset 'huge' is not one of demo, dev, paper, smoke"):
        config_dict("huge")


def test_the_page_of_all_fields_is_the_one_that_is_made():
    assert page() == (ROOT / "docs" / "config.md").read_text(encoding="utf-8")


def test_fields_are_read_without_jax_and_what_only_results_need():
    code = "import sys, mri_jax.settings.sections, mri_jax.settings.overrides; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(told.stdout.split())
    assert "mri_jax.models.spec" in loaded
    assert not loaded & {"jax", "flax", "orbax", "statsmodels", "sklearn", "nilearn", "matplotlib"}
