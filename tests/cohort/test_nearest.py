"""The clinical visit nearest to a scan."""

import pandas as pd

from mri_jax.cohort.nearest import at_scan

ENTRY = pd.Timestamp(2010, 1, 1)


def day(number: int) -> pd.Timestamp:
    return ENTRY + pd.Timedelta(days=number)


def visited(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"subject_id": who, "date": day(when), "diagnosis": what} for who, when, what in rows]
    )


def scanned(*rows: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"subject_id": who, "date": day(when), "visit": f"d{when}", "t1": True}
         for who, when in rows]
    )  # fmt: skip


def test_the_first_scanned_day_near_a_diagnosed_visit_labels():
    visits, images = at_scan(
        visited(("a", 0, ""), ("a", 300, "CN"), ("a", 700, "AD")),
        scanned(("a", 10), ("a", 350), ("a", 690)),
        180,
    )
    assert visits["baseline_rank"].notna().tolist() == [False, True, False]
    assert visits.loc[1, "session"] == "ses-d350"
    assert images["visit"].tolist() == ["d350"]


def test_where_no_scan_is_near_any_visit_everybody_keeps_the_nearest_and_all_images():
    visits, images = at_scan(
        visited(("a", 3000, "CN"), ("a", 3400, "CN"), ("b", 3000, "AD")),
        scanned(("a", 0), ("a", 30), ("b", 0)),
        180,
    )
    assert visits["baseline_rank"].notna().tolist() == [True, False, True]
    assert visits["session"].tolist() == ["ses-d30", "", "ses-d0"]
    assert len(images) == 3
