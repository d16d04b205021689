"""Whether methods that align two sites were misled by unequal shares of patients."""

from collections.abc import Iterator

import pandas as pd
from scipy import stats

from mri_jax import adaptation
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.showing.numbers import class_named

ALPHA = 0.05


def unequal(section: FamilyAnalysis, analysis: Analysis) -> Iterator[str]:
    """Yields a sentence where source and target differ in their shares of patients.

    Only for tables of methods that align sites, which cannot tell another share of patients from
    another scanner: Fisher's exact test of the two shares, by subject, below `ALPHA`. Parts of a
    target have the target's share.
    """
    aligned = _aligning(section)
    if not aligned or not section.family.key.startswith("adaptation"):
        return
    rows = analysis.predictions[analysis.predictions["run"] == aligned[0].run]
    source = _counts(rows[rows["split"].eq("validation") & rows["stage"].eq(SOURCE)])
    own = rows[rows["stage"].eq(aligned[0].stage)]
    for cohort in own.loc[own["split"].eq("adaptation"), "cohort"].unique():
        there = _counts(own[own["cohort"].eq(cohort) & own["split"].isin(("adaptation", "test"))])
        if min(sum(source), sum(there)) == 0 or stats.fisher_exact([source, there])[1] >= ALPHA:
            continue
        shares = [f"{counts[0] / sum(counts):.0%}" for counts in (source, there)]
        names = "; ".join(section.label(method.name) for method in aligned)
        patients = class_named(section.classes[1])
        yield (
            f"{section.short}: {shares[1]} of {cohort} and {shares[0]} of the source are "
            f"{patients}. What aligns the sites takes unequal shares for a difference of scanners, "
            f"and may do harm ({names}); docs/adaptation.md, Shares of patients."
        )


def depends(section: FamilyAnalysis) -> Iterator[str]:
    """Yields a sentence for each method whose scores changed with the share of patients."""
    if not section.family.key.startswith("prevalence"):
        return
    rows = section.differences
    clear = rows[rows["p_holm"].lt(ALPHA) & rows["split"].eq("test")]
    for (first, cohort), group in clear.groupby(["first", "cohort"], sort=False):
        scores = ", ".join(
            f"{row['metric'].upper()} {100 * row['difference']:+.1f} points"
            for row in group.to_dict("records")
        )
        yield (
            f"{cohort}: {section.label(first)}: its scores change with the share of patients that "
            f"it is adapted on ({scores} against the middle share)."
        )


def _aligning(section: FamilyAnalysis) -> list[Method]:
    """Returns the methods of a table that use no labels of the target."""
    found = []
    for method in section.family.networks:
        way = adaptation.of_stage(method.stage)
        if way and way.label_free and not adaptation.marks(method.stage):
            found.append(method)
    return found


def _counts(rows: pd.DataFrame) -> tuple[int, int]:
    """Returns the positive and the negative subjects of some rows."""
    labels = rows.drop_duplicates("subject_id")["label"]
    return int((labels == 1).sum()), int((labels == 0).sum())
