"""What a reader must be warned of, one plain line each."""

import numpy as np
import pandas as pd

from mri_jax import adaptation
from mri_jax.evaluation.baselines import BASELINES
from mri_jax.evaluation.families import SOURCE
from mri_jax.evaluation.intervals import decisions
from mri_jax.evaluation.operating import INNER
from mri_jax.evaluation.scores import Scores
from mri_jax.reporting import prevalence, trainings
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs.labels import titled
from mri_jax.runs.results import Results
from mri_jax.settings.presets import unmeant
from mri_jax.showing.numbers import class_named
from mri_jax.showing.simulated import caution

FEW = 20
"""A class with fewer subjects than this is pointed out."""
WIDE = 20.0
"""An AUC interval wider than this (points) is pointed out."""


def cautions(analysis: Analysis) -> list[str]:
    """Returns every caution, without repetition, in order of weight.

    What is wrong with single networks stands in the page's first lines (`findings`), and not here.
    """
    lines = []
    if analysis.simulated:
        lines.append(caution())
    for name, run in zip(analysis.names, analysis.runs, strict=True):
        if run.study and run.study.smoke:
            lines.append(f"{name}: preset smoke; its scores mean nothing.")
        made = run.provenance.preprocessing if run.provenance else None
        if run.study and made and (told := unmeant(run.study.preset, made.spacing)):
            lines.append(f"{name}: {told}.")
        lines += [f"{name}: {line}." for line in run.missing]
        if run.provenance is None or run.provenance.simulated is None:
            lines.append(f"{name}: its provenance does not say whether the scans are simulated.")
        if run.provenance is not None and (analysed := run.provenance.despite_exclusion):
            lines.append(
                f"{name}: {analysed} of its scans were analysed although quality control excludes "
                "them (exclusions.csv of the store): the cohort table still had them."
            )
        if not searched_for_near_duplicates(run):
            lines.append(
                f"{name}: no search for near-duplicate scans is recorded. A person scanned under "
                "two ids may stand on both sides of an evaluation and make scores too good; "
                "python -m mri_jax cohort check TABLE --store STORE looks for them."
            )
    lines += trainings.left_out(analysis)
    lines += _of_baselines(analysis)
    for section in analysis.sections:
        lines += _of_section(section, alone=len(analysis.sections) == 1)
        lines += [*prevalence.unequal(section, analysis), *prevalence.depends(section)]
    return list(dict.fromkeys(lines))


def searched_for_near_duplicates(run: Results) -> bool:
    """Returns whether a run says that its scans were compared, or made their persons itself."""
    own = run.study is not None and run.study.data.simulated
    compared = run.provenance is not None and bool(run.provenance.near_duplicates)
    return (own and run.simulated) or compared


def _of_baselines(analysis: Analysis) -> list[str]:
    """Returns which covariates a baseline had to leave out."""
    plan = analysis.plan
    if not {"covariates", "family"} <= set(plan.columns):
        return []
    lines = []
    for baseline in BASELINES:
        rows = plan[plan["family"].isin(baseline.labels)]
        for run, group in rows.groupby("run", sort=False):
            fitted = set(group["covariates"].dropna().explode())
            left_out = [name for name in baseline.covariates if name not in fitted]
            if left_out and fitted:
                name = titled(analysis.label(run, SOURCE))
                lines.append(
                    f"{name} was fitted on {' and '.join(sorted(fitted))} alone: {left_out[0]} is "
                    "unknown for the training subjects, or is itself the label (it tells the two "
                    "classes apart without an error)."
                )
    return lines


def _of_section(section: FamilyAnalysis, alone: bool) -> list[str]:
    lines = []
    for cohort in section.cohorts:
        where = cohort if alone else f"{cohort} ({section.short})"
        cells = section.tested(cohort)
        for cell in (e for e in section.entries if e.cohort == cohort and e.note):
            lines.append(f"{where}: {section.label(cell.method.name)} is not shown: {cell.note}.")
        if cells and cells[0].scores is not None:
            few = []
            for count, name in zip(cells[0].scores.counts, section.classes[::-1], strict=True):
                if count == 0:
                    lines.append(
                        f"{where}: no {class_named(name)} subject; AUC and BAC are undefined."
                    )
                elif count < FEW:
                    few.append(f"{count} {class_named(name)}")
            if few:
                lines.append(
                    f"{where}: only {' and '.join(few)} subjects; intervals are wide and rest on "
                    "few people."
                )
        lines += _of_intervals(section, cohort, where)
    if section.family.exploratory:
        lines.append(f"{section.title}: exploratory; not planned for inference.")
    # Networks adapted without labels have theirs from the adaptation part itself.
    ways = [(m, adaptation.of_stage(m.stage)) for m in section.family.networks]
    tuned = [m for m, way in ways if m.stage != SOURCE and not (way and way.label_free)]
    inner = section.points["point"].eq(INNER) & section.points["mean"].notna()
    if tuned and not inner.any():
        lines.append(
            f"{section.title}: the run holds no cross-validated scores of the adaptation "
            "part, so tuned networks have no refitted threshold and no temperature."
        )
    return lines


def _of_intervals(section: FamilyAnalysis, cohort: str, where: str) -> list[str]:
    lines = []
    rows = section.summary[
        section.summary["cohort"].eq(cohort)
        & section.summary["split"].eq("test")
        & section.summary["metric"].eq("auc")
    ]
    width = 100 * (rows["a_high"] - rows["a_low"])
    if (width > WIDE).any():
        lines.append(
            f"{where}: the AUC's 95% intervals are wide: {(width > WIDE).sum()} of {len(rows)} "
            f"methods span more than {WIDE:.0f} points, the widest "
            f"{section.label(rows.loc[width.idxmax(), 'method'])} {width.max():.0f}."
        )
    for row in rows.to_dict("records"):
        name = section.label(row["method"])
        if row["networks"] == 1 and row["run"] not in section.family.baselines:
            lines.append(f"{where}: {name} is a single network; there is no SD and no interval B.")
        if row["mean"] in (0.0, 1.0):
            lines.append(
                f"{where}: {name} separates the classes perfectly; no interval can be estimated."
            )
    alike: list[tuple[str, str, bool]] = []
    for cell in section.tested(cohort):
        scores = cell.scores
        if scores is None or cell.method.variant.is_baseline:
            continue
        name = section.label(cell.method.name)
        alike += _one_class(name, scores)
        if len(scores.score) < 2:
            continue
        if scores.tested.all() and np.ptp(scores.score, axis=0).max() == 0.0:
            lines.append(
                f"{where}: all networks of {name} give identical scores; their spread "
                "says nothing about retraining."
            )
    return lines + _told_alike(alike, where)


def _told_alike(alike: list[tuple[str, str, bool]], where: str) -> list[str]:
    """Returns what is said of networks from `_one_class`: one line, however many there are."""
    if len(alike) == 1:
        ((networks, word, single),) = alike
        verb = "decides" if single else "decide"
        told = (
            f"{networks} {verb} every subject {word} at argmax; the SD of SEN and SPE includes it"
        )
        return [f"{where}: {told}."]
    if not alike:
        return []
    of_word = {word: [n for n, w, _ in alike if w == word] for _, word, _ in alike}
    told = " ".join(f"All {word}: {'; '.join(names)}." for word, names in of_word.items())
    what = "networks that decide all subjects alike at argmax, which the SD of SEN and SPE includes"
    return [f"{where}: {what}. {told}"]


def _one_class(name: str, scores: Scores) -> list[tuple[str, str, bool]]:
    """Returns networks that decide all subjects of a cohort with both classes alike.

    Each as (folds and name, ``negative`` or ``positive``, whether it is one network).
    """
    found_all = []
    decided = decisions(scores)
    for value, word in ((False, "negative"), (True, "positive")):
        alike = ((decided == value) | ~scores.tested).all(axis=1)
        both = (scores.tested & (scores.label == 1)).any(axis=1)
        both &= (scores.tested & (scores.label == 0)).any(axis=1)
        found = pd.Series(scores.fold[alike & both])
        if len(found):
            found_all.append((f"{trainings.folds(found)} of {name}", word, len(found) == 1))
    return found_all
