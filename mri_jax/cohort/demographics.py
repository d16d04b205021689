"""Who the subjects are: the table of the paper's supplement, with tests for differences."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from mri_jax.cohort.sessions import first_of_each
from mri_jax.showing.forms import grid, tabular
from mri_jax.showing.numbers import DASH, p_value
from mri_jax.showing.table import Table, from_rows

# Column of the cohort table -> what it is called and its unit.
VARIABLES = {
    "age": "age (years)",
    "education": "education (years)",
    "mmse": "MMSE",
    "cdr": "CDR",
    "cdrsb": "CDR sum of boxes",
}
# Guan et al., MLMI 2021, supplement: subjects of each cohort and class.
PAPER_COUNTS = {
    "ADNI1": {"AD": 205, "CN": 231, "pMCI": 165, "sMCI": 147},
    "ADNI2": {"AD": 162, "CN": 205, "pMCI": 88, "sMCI": 253},
    "ADNI3": {"AD": 60, "CN": 329},
    "AIBL": {"AD": 71, "CN": 447, "pMCI": 11, "sMCI": 20},
}


@dataclass(frozen=True)
class Demographics:
    """The two tables of `describe`.

    Attributes:
      groups: One row a (cohort, class): ``n``, ``female``, ``other_sex`` (neither female nor
        male), ``sex_missing``, and for each variable present its ``_mean``, ``_sd`` (n - 1) and
        ``_missing``.
      tests: One row a comparison: ``within`` (a cohort, or a class), ``between`` (the groups),
        ``variable``, ``test``, ``statistic``, ``p``.
    """

    groups: pd.DataFrame
    tests: pd.DataFrame


def describe(table: pd.DataFrame) -> Demographics:
    """Describe a cohort table; a subject counts once in a cohort, with its first session.

    Args:
      table: A cohort table; of `VARIABLES`, those present are described.

    Returns:
      Groups, and tests between the classes of each cohort and between the cohorts of each class:
      sex (female, male) by Fisher's exact test (two groups) or chi-squared, variables by Welch's
      t-test (two groups) or Welch's analysis of variance. They are not corrected for their number.
    """
    rows = first_of_each(table.reset_index(drop=True))
    present = [name for name in VARIABLES if name in rows and _numbers(rows[name]).notna().any()]
    groups = [
        {"cohort": cohort, "class": name, **_group(of, present)}
        for (cohort, name), of in rows.groupby(["cohort", "diagnosis"], sort=True)
    ]
    tests: list[dict] = []
    for within, between in (("cohort", "diagnosis"), ("diagnosis", "cohort")):
        for value, of in rows.groupby(within, sort=True):
            tests += _tests(str(value), of, between, present)
    columns = ["within", "between", "variable", "test", "statistic", "p"]
    return Demographics(pd.DataFrame(groups), pd.DataFrame(tests, columns=columns))


def _group(rows: pd.DataFrame, present: list[str]) -> dict:
    figures = {
        "n": len(rows),
        "female": int((rows["sex"] == "F").sum()),
        "other_sex": int((rows["sex"] == "O").sum()),
        "sex_missing": int((rows["sex"] == "").sum()),
    }
    for name in present:
        values = _numbers(rows[name])
        figures[f"{name}_mean"] = values.mean()
        figures[f"{name}_sd"] = values.std(ddof=1)
        figures[f"{name}_missing"] = int(values.isna().sum())
    return figures


def _tests(within: str, rows: pd.DataFrame, by: str, present: list[str]) -> list[dict]:
    """Tests between the groups that have at least two values; none if there is one such group."""
    found = []
    for name in ("sex", *present):
        known = rows["sex"].isin(["F", "M"]) if name == "sex" else _numbers(rows[name]).notna()
        counts = rows[known].groupby(by).size()
        groups = sorted(counts.index[counts > 1])
        if len(groups) < 2:
            continue
        if name == "sex":
            result = _sex_test(rows[known & rows[by].isin(groups)], by)
        else:
            values = _numbers(rows[name])[known]
            result = _mean_test([values[rows[by] == group].to_numpy() for group in groups])
        found.append({"within": within, "between": ", ".join(groups), "variable": name, **result})
    return found


def _sex_test(rows: pd.DataFrame, by: str) -> dict:
    counts = pd.crosstab(rows[by], rows["sex"])
    if counts.shape[1] < 2:
        return {"test": "none (one sex)", "statistic": np.nan, "p": np.nan}
    if counts.shape == (2, 2):
        result = scipy.stats.fisher_exact(counts.to_numpy())
        return {"test": "Fisher exact", "statistic": result.statistic, "p": result.pvalue}
    result = scipy.stats.chi2_contingency(counts.to_numpy())
    return {"test": "chi-squared", "statistic": result.statistic, "p": result.pvalue}


def _mean_test(samples: list[np.ndarray]) -> dict:
    if all(np.ptp(s) == 0 for s in samples):
        return {"test": "none (no variance)", "statistic": np.nan, "p": np.nan}
    if len(samples) == 2:
        result = scipy.stats.ttest_ind(*samples, equal_var=False)
        return {"test": "Welch t", "statistic": float(result.statistic), "p": float(result.pvalue)}
    statistic, p = _welch_anova(samples)
    return {"test": "Welch ANOVA", "statistic": statistic, "p": p}


def _welch_anova(samples: list[np.ndarray]) -> tuple[float, float]:
    """Returns F and p of Welch's analysis of variance (doi:10.1093/biomet/38.3-4.330)."""
    n = np.array([len(s) for s in samples], float)
    mean = np.array([s.mean() for s in samples])
    variance = np.array([s.var(ddof=1) for s in samples])
    if (variance == 0).any():
        return float("nan"), float("nan")
    weight = n / variance
    share = weight / weight.sum()
    k = len(samples)
    spread = ((1 - share) ** 2 / (n - 1)).sum()
    above = (weight * (mean - (share * mean).sum()) ** 2).sum() / (k - 1)
    statistic = above / (1 + 2 * (k - 2) / (k**2 - 1) * spread)
    return float(statistic), float(scipy.stats.f.sf(statistic, k - 1, (k**2 - 1) / (3 * spread)))


def groups_table(described: Demographics) -> Table:
    """Returns the groups as they are printed: ``75.4 ± 7.1``, ``98 (48%)``."""
    groups = described.groups
    present = [name for name in VARIABLES if f"{name}_mean" in groups]
    header = ["cohort", "class", "n", "female", *(VARIABLES[name] for name in present)]
    rows = []
    for group in groups.to_dict("records"):
        known = group["n"] - group["sex_missing"]
        share = f" ({100 * group['female'] / known:.0f}%)" if known else ""
        cells = [group["cohort"], group["class"], str(group["n"])]
        other = f", {group['other_sex']} other" if group["other_sex"] else ""
        cells.append(f"{group['female']}{share}{other}{_missing(group['sex_missing'])}")
        for name in present:
            mean, sd = group[f"{name}_mean"], group[f"{name}_sd"]
            digits = 1 if name in ("age", "education", "mmse") else 2
            spread = DASH if np.isnan(sd) else f"{sd:.{digits}f}"
            said = DASH if np.isnan(mean) else f"{mean:.{digits}f} ± {spread}"
            cells.append(said + _missing(group[f"{name}_missing"]))
        rows.append(cells)
    note = "Mean ± SD (n - 1); female with the share of those known; [k] missing."
    return from_rows("demographics", "Subjects", header, rows, note)


def as_markdown(described: Demographics) -> str:
    """Returns both tables and what they mean."""
    groups = groups_table(described)
    tests = [
        (within, between, VARIABLES.get(variable, variable), test, p_value(p))
        for within, between, variable, test, _, p in described.tests.itertuples(index=False)
    ]
    parts = [grid(groups), groups.note]
    if tests:
        header = ("within", "between", "variable", "test", "p")
        parts += [grid(from_rows("tests", "Tests", header, tests))]
        parts += ["p not corrected for the number of tests."]
    return "\n\n".join(parts) + "\n"


def as_latex(described: Demographics) -> str:
    """Returns the groups as a ``tabular`` that needs no package."""
    groups = groups_table(described)
    return tabular(groups.header, groups.rows) + "\n"


def beside_paper(table: pd.DataFrame) -> str:
    """Returns our counts beside the paper's, for the cohorts that it has; empty without any."""
    once = table.drop_duplicates(["subject_id", "cohort"])
    ours = once.groupby(["cohort", "diagnosis"]).size()
    rows = [
        [cohort, name, str(ours.get((cohort, name), 0)), str(count)]
        for cohort, counts in PAPER_COUNTS.items()
        if cohort in set(table["cohort"])
        for name, count in counts.items()
    ]
    counts = from_rows("paper", "Counts", ("cohort", "class", "here", "paper"), rows)
    return grid(counts) if rows else ""


def _numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype(float)


def _missing(count: int) -> str:
    return f" [{count}]" if count else ""
