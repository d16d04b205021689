import dataclasses

import numpy as np
import pandas as pd

from mri_jax.cohort.table import read_table
from mri_jax.simulation import CohortRequest, SimulationSettings, planned_table
from mri_jax.site_shifts import SHIFTS

ALONE = (CohortRequest("ADNI2", {"AD": 8}),)


def test_the_table_of_planned_scans_is_that_of_made_ones(few, made):
    planned = planned_table(few)
    written = read_table(made.table_path)
    text = planned["shared_with"].dtype
    written["shared_with"] = written["shared_with"].fillna("").astype(text)
    assert list(planned.columns) == [*written.columns, "fingerprint"]
    measured = ["hippocampus_ml"]
    pd.testing.assert_frame_equal(
        planned.drop(columns=[*measured, "fingerprint"]), written.drop(columns=measured)
    )
    ratio = planned["hippocampus_ml"] / written["hippocampus_ml"]
    assert 0 < np.abs(np.log(ratio)).max() < 0.02


def test_a_fingerprint_is_of_the_scan_and_not_of_who_else_is_made(few):
    planned = planned_table(few)
    assert planned["fingerprint"].is_unique
    key = ["subject_id", "session_id"]
    among = planned.set_index(key)["fingerprint"]
    alone = planned_table(dataclasses.replace(few, cohorts=ALONE)).set_index(key)["fingerprint"]
    assert (among.loc[alone.index] == alone).all()
    others = (
        {"seed": 4},
        {"grid": "dev"},
        {"effect": 0.5},
        {"shifts": SHIFTS[1:]},
        {"raw": True},
    )
    for change in others:
        other = planned_table(SimulationSettings(**{"grid": "demo", "seed": 3, **change,
                                                    "cohorts": ALONE}))  # fmt: skip
        assert not set(other["fingerprint"]) & set(among), change


def test_planned_raw_heads_name_their_images(few):
    planned = planned_table(dataclasses.replace(few, cohorts=ALONE, raw=True))
    assert planned["image"].iloc[0] == (
        "rawdata/ADNI2/sub-SIMADNI2AD0000/ses-m000/anat/sub-SIMADNI2AD0000_ses-m000_T1w.nii.gz"
    )
