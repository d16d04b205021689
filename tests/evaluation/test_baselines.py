import dataclasses

import numpy as np
import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.evaluation.variants import Variant
from mri_jax.settings.sections import Baselines


def test_the_config_has_a_field_for_each():
    fields = [field.name for field in dataclasses.fields(Baselines)]
    assert fields == [baseline.name for baseline in baselines.BASELINES]
    assert Baselines(hippocampus=False).wanted == ("age_sex", "voxels")
    assert len(set(baselines.LABELS)) == len(baselines.LABELS) == 5


def test_a_baseline_is_called_after_what_it_uses_and_on_whom_it_was_fitted():
    used = {("age", "sex"): "age-sex", ("age",): "age", ("sex",): "sex", ("sex", "sex"): "sex"}
    both = baselines.named("age_sex")
    for covariates, name in used.items():
        assert both.variant(covariates, "") == Variant(f"baseline-{name}")
    assert both.variant(("age",), "CNN-AD2").name == "baseline-age-CNN-AD2"
    share = ("hippocampus_share",)
    assert baselines.named("hippocampus").variant(share, "").name == "baseline-hippocampus"
    assert baselines.named("voxels").variant((), "").name == "baseline-voxels"


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": list("abcdef"),
            "session_id": "m00",
            "age": [60.0, 61.0, 62.0, 70.0, 71.0, np.nan],
            "sex": ["F", "M", "O", "F", "M", ""],
            "hippocampus_ml": [6.0, 7.0, 8.0, 5.0, 5.5, np.nan],
            "intracranial_ml": [1500.0, 1400.0, 1600.0, 1250.0, 1100.0, np.nan],
        }
    )


def test_covariates_are_numbers_and_nan_where_unknown(table):
    found = baselines.values(table, ("age", "sex", "hippocampus_share"), (5, 2, 1))
    expected = [[np.nan, np.nan, np.nan], [62.0, np.nan, 0.005], [61.0, 1.0, 0.005]]
    np.testing.assert_allclose(found, expected)


def test_what_no_training_scan_has_or_what_is_the_label_is_left_out(table):
    both, rows, labels = baselines.named("age_sex"), range(6), np.array([0, 0, 0, 1, 1, 0])
    assert both.usable(table, (0, 1, 3, 4), rows, labels) == ("sex",)
    assert both.usable(table, (2, 5), rows, labels) == ()
    mixed = np.array([0, 1, 0, 1, 0, 0])
    assert both.usable(table, (0, 1, 3, 4), rows, mixed) == ("age", "sex")
    # The share of a hippocampus may tell the classes apart: that is what it is measured for.
    share = baselines.named("hippocampus")
    apart = table.assign(hippocampus_ml=[9.0, 9.0, 9.0, 1.0, 1.0, 9.0])
    assert share.usable(apart, (0, 3), rows, labels) == ("hippocampus_share",)


def test_a_measure_that_is_no_volume_is_named(table):
    share = baselines.named("hippocampus")
    share.check(table)
    with pytest.raises(UserError, match=r"column hippocampus_ml: '-1.0' of subject b, session m00"):
        share.check(table.assign(hippocampus_ml=[6.0, -1.0, 8.0, 5.0, 5.5, 1.0]))
