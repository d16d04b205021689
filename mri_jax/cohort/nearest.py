"""The clinical visit nearest to a scan, for archives that scan and examine on different days."""

import numpy as np
import pandas as pd


def at_scan(
    visits: pd.DataFrame, images: pd.DataFrame, days: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns visits with the one that labels each subject, and the images that it may have.

    Of each subject the first day with a T1w scan counts that has a diagnosed visit within ``days``;
    the nearest such visit is the baseline (of two equally near the earlier one), the scans of that
    day are its images. Who has no such day keeps all images, and the visit that is nearest to any.

    Args:
      visits: Has ``subject_id``, ``date`` and ``diagnosis``.
      images: An images table (`mri_jax.cohort.images`) with dates.
      days: The largest distance.

    Returns:
      The visits with ``baseline_rank`` and ``session`` (that of the scan), and the images.
    """
    scans = images.loc[images["t1"] & images["date"].notna(), ["subject_id", "date", "visit"]]
    scans = scans.drop_duplicates(["subject_id", "date"]).rename(
        columns={"date": "scanned", "visit": "scan"}
    )
    pairs = visits.assign(row=visits.index)[["row", "subject_id", "date", "diagnosis"]]
    pairs = pairs.merge(scans, on="subject_id")
    apart = (pairs["scanned"] - pairs["date"]).dt.days.abs()
    pairs = pairs.assign(
        apart=apart, far=~(apart <= days), unsaid=pairs["diagnosis"] == "", known=apart.notna()
    )
    pairs = pairs.assign(unfit=pairs["far"] | pairs["unsaid"])
    fit = pairs[~pairs["unfit"]].sort_values(["subject_id", "scanned", "apart", "date"])
    unfit = pairs[pairs["known"]].sort_values(["subject_id", "apart", "scanned"])
    chosen = pd.concat([fit, unfit]).drop_duplicates("subject_id").set_index("row")
    unscanned = visits[~visits["subject_id"].isin(chosen["subject_id"])]
    first = unscanned.sort_values(["subject_id", "date"]).drop_duplicates("subject_id").index
    rank = pd.Series(np.nan, index=visits.index)
    rank[chosen.index.append(first)] = 0.0
    session = pd.Series("", index=visits.index, dtype=object)
    session[chosen.index] = "ses-" + chosen["scan"].str.removeprefix("ses-")
    first_day = fit.drop_duplicates("subject_id").set_index("subject_id")["scanned"]
    # `map` fails where nobody has such a day.
    day = first_day.reindex(images["subject_id"]).set_axis(images.index)
    kept = images[day.isna() | (images["date"] == day)]
    return visits.assign(baseline_rank=rank, session=session), kept
