"""Who was analysed: counts, sex and age per cohort and class, and the flow of subjects."""

import numpy as np
import pandas as pd

from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.table import Cell, Table, text


def demographics_table(analysis: Analysis) -> Table:
    """Subjects, sex and age per cohort and diagnosis, over all runs, each scan once."""
    frames = [run.cohort for run in analysis.runs if len(run.cohort)]
    rows: list[tuple[Cell, ...]] = []
    data = pd.DataFrame()
    if frames:
        everyone = pd.concat(frames, ignore_index=True)
        key = [c for c in ("subject_id", "session_id") if c in everyone.columns]
        everyone = everyone.drop_duplicates(key) if key else everyone
        records = []
        for (cohort, diagnosis), group in everyone.groupby(["cohort", "diagnosis"], sort=False):
            people = group.drop_duplicates("subject_id")
            age = pd.to_numeric(people.get("age", pd.Series(dtype=float)), errors="coerce")
            sex = people.get("sex", pd.Series("", index=people.index))
            women, men = int(sex.eq("F").sum()), int(sex.eq("M").sum())
            mean, sd = float(age.mean()), float(age.std(ddof=1)) if len(age) > 1 else np.nan
            records.append(
                {
                    "cohort": cohort,
                    "diagnosis": diagnosis,
                    "subjects": len(people),
                    "scans": len(group),
                    "women": women,
                    "men": men,
                    "age_mean": mean,
                    "age_sd": sd,
                    "age_missing": int(age.isna().sum()),
                }
            )
            shown = "–" if np.isnan(mean) else f"{mean:.1f}"
            shown += "" if np.isnan(sd) else f" ± {sd:.1f}"
            rows.append(
                (
                    text(cohort),
                    text(diagnosis),
                    Cell(str(len(people)), float(len(people))),
                    Cell(str(len(group)), float(len(group))),
                    Cell(f"{women} / {men}", float(women)),
                    Cell(shown, mean),
                )
            )
        data = pd.DataFrame(records)
    return Table(
        "demographics",
        "Subjects",
        "Age in years, mean ± SD.",
        ("Cohort", "Diagnosis", "Subjects", "Scans", "Women / men", "Age"),
        tuple(rows),
        data,
    )


def flow_table(analysis: Analysis) -> Table:
    """How many scans each step of the selection left, as the study recorded it."""
    frames = [
        run.flow.assign(run=run.name) if len(analysis.runs) > 1 else run.flow
        for run in analysis.runs
        if len(run.flow)
    ]
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    hidden = {"subject_id", "session_id", "date"}
    data = data[[c for c in data.columns if c not in hidden]]
    rows = tuple(
        tuple(Cell(str(v), float(v) if isinstance(v, int | float) else str(v)) for v in row)
        for row in data.itertuples(index=False)
    )
    return Table("flow", "Flow of subjects", "", tuple(map(str, data.columns)), rows, data)
