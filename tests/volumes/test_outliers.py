"""Scans are compared with their like: a scanner, else a cohort, else nobody."""

import numpy as np
import pandas as pd
import pytest

from mri_jax.volumes import outliers, scanners


def scans(cohort, snr, scanner=None, first=0, **figures):
    """Rows of an index with some figures; the brain volumes differ a little."""
    count = len(snr)
    rows = {
        "subject_id": [f"{cohort}{first + i:03d}" for i in range(count)],
        "session_id": "ses-1",
        "cohort": cohort,
        "snr": snr,
        "brain_ml": 1400.0 + np.arange(count),
        **figures,
    }
    return pd.DataFrame(rows | ({"scanner": scanner} if scanner else {}))


def spread(middle, sd, count=12):
    return middle + sd * np.linspace(-1.5, 1.5, count)


def test_two_unlike_scanners_do_not_hide_each_other_s_outliers():
    """Pooled, the lower limit of SNR lay below 0 and good scans were flagged by their volume."""
    one, other = scans("IXI", spread(40, 2)), scans("OASIS", spread(8, 0.4))
    other["brain_ml"] = 1100.0 + np.arange(12)
    bad = scans("IXI", [25.0], first=90)
    index = pd.concat([one, other, bad], ignore_index=True)
    pooled = outliers.groups_of(index.assign(cohort="all")).groups[0]
    assert pooled.blind == ("snr",)
    assert pooled.bounds["snr"][0] < 0
    assert "cannot flag anything, the scans differ too much: snr (limit -" in pooled.describe()
    flagged = outliers.flags(index)
    assert flagged.tolist() == [""] * 24 + ["snr low"]
    groups = outliers.groups_of(index)
    assert [(g.cohort, g.scans, g.compared, g.blind) for g in groups.groups] == [
        ("IXI", 13, 13, ()),
        ("OASIS", 12, 12, ()),
    ]
    assert outliers.suspicion(index).argmax() == 24


def test_within_a_cohort_scanners_are_compared_where_they_made_enough():
    index = pd.concat(
        [
            scans("A", spread(40, 2), "GE 3 T"),
            scans("A", spread(8, 0.4), "Philips 1.5 T", first=20),
            scans("A", spread(39, 1, 3), "Siemens 3 T", first=50),
        ],
        ignore_index=True,
    )
    index.loc[3, "snr"] = 24.0
    groups = outliers.groups_of(index)
    assert [(g.name, g.scans, g.compared) for g in groups.groups] == [
        ("A, GE 3 T", 12, 12),
        ("A, Philips 1.5 T", 12, 12),
        ("A", 3, 27),
    ]
    assert groups.groups[2].describe().startswith("A: 3 scans, limits from 27 scans of the cohort")
    assert np.flatnonzero(outliers.flags(index, groups) != "").tolist() == [3]


def test_few_scans_have_fixed_limits_only_and_that_is_said():
    index = scans("A", spread(40, 2, 7))
    index.loc[2, ["snr", "brain_ml"]] = 1.0, 700.0
    (group,) = outliers.groups_of(index).groups
    assert group.compared == 0
    assert "fixed limits only (outliers need 8 scans" in group.describe()
    assert outliers.flags(index)[2] == "brain_ml low"
    table = outliers.quality_table(index)
    assert table["subject_id"][0] == "A002"
    assert set(table["limits_from"]) == {"fixed limits only"}


def test_one_cohort_of_one_scanner_has_the_limits_it_always_had():
    snr = np.array([20.0, 21, 22, 23, 24, 25, 26, 27, 28])
    (group,) = outliers.groups_of(scans("A", snr)).groups
    sd = 1.4826 * 2  # median absolute deviation of nine equal steps
    assert group.bounds["snr"] == pytest.approx((24 - 4 * sd, 24 + 4 * sd))
    assert group.bounds["brain_ml"] == pytest.approx((1404 - 4 * 14.04, 1404 + 4 * 14.04))


def test_a_scan_of_an_unknown_scanner_may_be_like_any():
    index = pd.concat([scans("A", spread(40, 2)), scans("B", spread(8, 0.4))], ignore_index=True)
    groups = outliers.groups_of(index).groups
    bounds = outliers.widest(groups)
    assert bounds["snr"] == (groups[1].bounds["snr"][0], groups[0].bounds["snr"][1])
    assert outliers.outside({"snr": 3.0, "brain_ml": np.nan}, bounds) == "snr low"
    assert outliers.outside({"snr": 20.0}, bounds) == ""


def test_filled_voxels_are_flagged_wherever_they_are():
    index = scans("A", spread(40, 2), filled_voxels=[np.nan] * 11 + [3])
    assert outliers.flags(index).tolist() == [""] * 11 + ["filled_voxels high"]


def test_the_cohort_table_completes_what_the_store_knows():
    index = scans("A", spread(40, 2, 3), ["GE", "", ""])
    cohort = pd.DataFrame(
        {
            "subject_id": ["A000", "A002"],
            "session_id": "ses-1",
            "manufacturer": ["Philips", "Siemens"],
            "field_strength": [1.5, 3.0],
        }
    )
    assert outliers.with_scanners(index, cohort)["scanner"].tolist() == ["GE", "", "Siemens 3 T"]
    bare = index.drop(columns="scanner")
    assert "scanner" not in outliers.with_scanners(bare, cohort[["subject_id", "session_id"]])


def test_names_of_scanners_follow_the_first_rule_that_a_row_answers():
    frame = pd.DataFrame(
        {
            "Scanner": ["S1", "n/a", "", ""],
            "Manufacturer": ["GE", "SIEMENS", " ", ""],
            "ManufacturersModelName": ["", "Trio  Tim", "", ""],
            "field_strength": ["3", "3.0T", "1.50", ""],
            "SITE": ["7", "7", "7", "7"],
        }
    )
    assert scanners.names(frame).tolist() == ["S1", "SIEMENS Trio Tim 3 T", "1.5 T", "7"]
    assert scanners.names(frame[["SITE"]]).tolist() == ["7"] * 4
    assert scanners.names(pd.DataFrame({"age": ["60"]})).tolist() == [""]
