"""Tables of the subjects analysed: counts, sex and age by cohort and class, and their flow."""

import numpy as np
import pandas as pd

from mri_jax.reporting.analysis import Analysis
from mri_jax.runs.results import Results
from mri_jax.showing.numbers import DASH
from mri_jax.showing.table import Cell, Table, text


def demographics_table(analysis: Analysis) -> Table:
    """Returns subjects, sex and age per cohort and diagnosis, over all runs, each scan once."""
    frames = [run.cohort for run in analysis.runs if len(run.cohort)]
    rows: list[tuple[Cell, ...]] = []
    data = pd.DataFrame()
    if frames:
        everyone = pd.concat(frames, ignore_index=True)
        key = [c for c in ("subject_id", "session_id") if c in everyone.columns]
        everyone = everyone.drop_duplicates(key) if key else everyone
        records = []
        for (cohort, diagnosis), group in everyone.groupby(["cohort", "diagnosis"]):
            # A person is as old as at the first scan, by age: labels do not sort by time.
            people = group
            if "age" in group:
                people = group.sort_values("age", kind="stable", key=pd.to_numeric)
            people = people.drop_duplicates("subject_id")
            age = pd.to_numeric(people.get("age", pd.Series(dtype=float)), errors="coerce")
            sex = people.get("sex", pd.Series("", index=people.index))
            women, men, other = (int(sex.eq(name).sum()) for name in "FMO")
            mean, sd = float(age.mean()), float(age.std(ddof=1)) if len(age) > 1 else np.nan
            records.append(
                {
                    "cohort": cohort,
                    "diagnosis": diagnosis,
                    "subjects": len(people),
                    "scans": len(group),
                    "women": women,
                    "men": men,
                    "other_sex": other,
                    "age_mean": mean,
                    "age_sd": sd,
                    "age_missing": int(age.isna().sum()),
                }
            )
            shown = DASH if np.isnan(mean) else f"{mean:.1f}"
            shown += "" if np.isnan(sd) else f" ± {sd:.1f}"
            shown += _unknown(int(age.isna().sum()))
            sexes = f"{women} / {men}" + (f" ({other} other)" if other else "")
            sexes += _unknown(len(people) - women - men - other)
            rows.append(
                (
                    text(cohort),
                    text(diagnosis),
                    Cell(str(len(people)), float(len(people))),
                    Cell(str(len(group)), float(len(group))),
                    Cell(sexes, float(women)),
                    Cell(shown, mean),
                )
            )
        data = pd.DataFrame(records)
    return Table(
        key="demographics",
        title="Subjects",
        header=("Cohort", "Diagnosis", "Subjects", "Scans", "Women / men", "Age"),
        rows=tuple(rows),
        note="Age in years, mean ± SD.",
        data=data,
    )


def _unknown(count: int) -> str:
    return f" ({count} unknown)" if count else ""


FLOW = ["stage", "step", "reason", "cohort", "class", "n"]
"""Columns of the study's record of the selection (`mri_jax.cohort.flow`)."""


def flow_table(analysis: Analysis) -> Table:
    """Returns what each step of the selection left, and why not the rest, a column a cohort."""
    flows = {
        name: pd.concat(
            [run.flow[FLOW].astype({"reason": object, "class": object}).fillna(""), _parts(run)],
            ignore_index=True,
        )
        for name, run in zip(analysis.names, analysis.runs, strict=True)
        if set(FLOW) <= set(run.flow.columns)
    }
    data = pd.concat(
        [flow.assign(run=name) for name, flow in flows.items()] or [pd.DataFrame(columns=FLOW)],
        ignore_index=True,
    )
    cohorts = list(dict.fromkeys(data["cohort"]))
    shared = len({flow.to_csv(index=False) for flow in flows.values()}) < 2
    rows: list[tuple[Cell, ...]] = []
    for name, flow in list(flows.items())[: 1 if shared else None]:
        for (stage, step, reason), group in flow.groupby(FLOW[:3], sort=False):
            what = f"{step}: {reason}" if reason else str(step)
            cells = [] if shared else [text(name)]
            cells += [text(stage), text(what)]
            cells += [_counts(group[group["cohort"] == cohort]) for cohort in cohorts]
            rows.append(tuple(cells))
    header = ("Stage", "Step", *cohorts) if shared else ("Run", "Stage", "Step", *cohorts)
    note = "Subjects found, left out and kept at each step of the selection, by class."
    return Table("flow", "Flow of subjects", header, tuple(rows), note, data)


def _parts(run: Results) -> pd.DataFrame:
    """Returns how many subjects of a cohort adapt and test, where networks are tuned on it."""
    rows, people = run.predictions, run.cohort
    rows = rows[rows["split"].isin(("adaptation", "test")) & rows["repeat"].eq(0)]
    rows = rows[rows["cohort"].isin(rows.loc[rows["split"].eq("adaptation"), "cohort"])]
    if not len(rows) or not {"subject_id", "diagnosis"} <= set(people.columns):
        return pd.DataFrame(columns=FLOW)
    diagnosis = people.drop_duplicates("subject_id").set_index("subject_id")["diagnosis"]
    rows = rows.drop_duplicates(["cohort", "split", "subject_id"])
    rows = rows.assign(**{"class": rows["subject_id"].map(diagnosis)}).dropna(subset=["class"])
    counts = rows.groupby(["split", "cohort", "class"], sort=True).size().rename("n").reset_index()
    step = counts["split"].map({"adaptation": "fine-tuned on", "test": "tested"})
    return counts.assign(stage="fine-tuning", step=step, reason="")[FLOW]


def _counts(rows: pd.DataFrame) -> Cell:
    """Returns ``12 AD, 12 CN``; a plain number where the classes are not told apart."""
    parts = [
        f"{n}" if kind in ("", "all") else f"{n} {kind}"
        for kind, n in zip(rows["class"], rows["n"], strict=True)
    ]
    return Cell(", ".join(parts) or DASH, float(rows["n"].sum()))
