import subprocess
import sys
from dataclasses import asdict

import pytest

from mri_jax.settings.adapting import Adaptation
from mri_jax.settings.generated import config_dict
from mri_jax.settings.page import page
from mri_jax.settings.search import Search
from mri_jax.settings.sections import Sites
from tests.conftest import ROOT
from tests.settings.recorded import recorded, resolved, typed

RECORDED = recorded()


@pytest.mark.parametrize("config", RECORDED)
def test_a_config_holds_what_it_held_before_value_and_type(config):
    found, model = resolved(*config.split(":")), RECORDED[config]["model"]
    assert model["form"] == "fast"
    kept = {name: value for name, value in model.items() if name != "form"}  # the field is retired
    if config.endswith((":dev", ":paper")):  # by what computes, since there are forms for GPUs
        kept["dtype"] = "auto"
    later = {"attention": "none", "attention_blocks": {"tuple": []}}
    later |= {"norm": "batch", "residual": False}
    kept = dict(sorted((kept | later).items()))
    tuning = RECORDED[config]["finetune"] | {"labels": {"tuple": []}}
    simulated = RECORDED[config]["simulation"] | {"shift": "sites", "strength": 1.0}
    added = {
        "train": RECORDED[config]["train"] | {"accumulate": 1},
        "simulation": simulated,
        "model": kept,
        "finetune": tuning,
        "adaptation": typed(asdict(Adaptation())),
        "search": typed(asdict(Search(folds=2 if config.endswith((":demo", ":smoke")) else 3))),
        "sites": typed(asdict(Sites())),
    }
    whole = RECORDED[config] | added
    assert repr(found) == repr({name: _sorted(whole[name]) for name in sorted(whole)})


def _sorted(section):
    """Returns a section by the names of its fields, as ConfigDict gives it."""
    return dict(sorted(section.items())) if isinstance(section, dict) else section


def test_typed_values_tell_what_json_does_not():
    assert typed({"a": (1, [2.0])}) == {"a": {"tuple": [1, [2.0]]}}
    assert repr(typed({"a": 1})) != repr(typed({"a": 1.0})) != repr(typed({"a": True}))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset 'huge' is not one of demo, dev, paper, smoke"):
        config_dict("huge")


def test_the_page_of_all_fields_is_the_one_that_is_made():
    assert page() == (ROOT / "docs" / "config.md").read_text(encoding="utf-8")


def test_a_config_that_is_refused_waits_for_no_package_that_runs_it():
    code = """
import runpy, sys
sys.argv = ["launch.py", "--allocator=stock", "--config=configs/depth.py", "--config.train.batch=0"]
try:
    runpy.run_path("launch.py", run_name="__main__")
except SystemExit as ended:
    print(ended.code, *sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    code, *loaded = told.stdout.split()
    assert code == "2"
    assert told.stderr.startswith("error: config.train.batch: 0 must be")
    assert "mri_jax.settings.study" in loaded
    heavy = {"jax", "flax", "orbax", "statsmodels", "sklearn", "nilearn", "matplotlib"}
    assert not heavy & set(loaded)
