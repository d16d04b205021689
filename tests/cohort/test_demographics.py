import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mri_jax.cohort.demographics import as_latex, as_markdown, beside_paper, describe, groups_table


@pytest.fixture
def table(rng) -> pd.DataFrame:
    n = 90
    return pd.DataFrame(
        {
            "subject_id": [f"s{i}" for i in range(n)],
            "session_id": "a",
            "cohort": np.repeat(["ADNI1", "AIBL"], [60, 30]),
            "diagnosis": np.resize(["AD", "CN", "sMCI"], n),
            "age": rng.normal(70, 7, n).round(1),
            "sex": rng.choice(["F", "M", ""], n),
            "mmse": np.where(np.arange(n) < 60, rng.normal(25, 3, n), np.nan),
            "image": "",
        }
    )


def test_means_counts_and_missing(table):
    twice = pd.concat([table, table.assign(session_id="b", age=95.0)])
    groups = describe(twice).groups.set_index(["cohort", "class"])
    rows = table[(table["cohort"] == "ADNI1") & (table["diagnosis"] == "AD")]
    row = groups.loc[("ADNI1", "AD")]
    assert row["n"] == len(rows)
    assert row["female"] == (rows["sex"] == "F").sum()
    assert row["sex_missing"] == (rows["sex"] == "").sum()
    assert row["age_mean"] == pytest.approx(rows["age"].mean())
    assert row["age_sd"] == pytest.approx(rows["age"].std(ddof=1))
    assert groups.loc[("AIBL", "CN"), "mmse_missing"] == 10
    assert "education_mean" not in groups


def test_a_person_counts_with_the_first_session_in_time(table):
    one = table.iloc[[0]]
    visits = [one.assign(session_id=s, age=a) for s, a in (("ses-10", 72.0), ("ses-2", 70.0))]
    assert describe(pd.concat(visits)).groups["age_mean"].tolist() == [70.0]
    unknown = pd.concat(visits).assign(age=np.nan, mmse=[20.0, 28.0])
    assert describe(unknown).groups["mmse_mean"].tolist() == [28.0]


def test_a_third_sex_is_counted_as_itself(table):
    table.loc[[0, 3], "sex"] = "O"  # both AD of ADNI1
    known = table[(table["cohort"] == "ADNI1") & (table["diagnosis"] == "AD")]
    described = describe(table)
    row = described.groups.set_index(["cohort", "class"]).loc[("ADNI1", "AD")]
    assert row["other_sex"] == 2
    assert row["sex_missing"] == (known["sex"] == "").sum()
    women = (known["sex"] == "F").sum()
    share = round(100 * women / known["sex"].isin(["F", "M", "O"]).sum())
    said = groups_table(described).rows[0][3].text
    assert said.startswith(f"{women} ({share}%), 2 other")


def test_tests_between_classes_and_cohorts(table):
    tests = describe(table).tests.set_index(["within", "variable"])
    known = table[table["sex"] != ""]
    first = known[known["cohort"] == "ADNI1"]
    counts = pd.crosstab(first["diagnosis"], first["sex"])
    assert tests.loc[("ADNI1", "sex"), "p"] == pytest.approx(stats.chi2_contingency(counts).pvalue)
    ad = table[table["diagnosis"] == "AD"]
    samples = [ad.loc[ad["cohort"] == name, "age"] for name in ("ADNI1", "AIBL")]
    assert tests.loc[("AD", "age"), "p"] == pytest.approx(
        stats.ttest_ind(*samples, equal_var=False).pvalue
    )
    assert tests.loc[("AD", "sex"), "test"] == "Fisher exact"
    assert ("AIBL", "mmse") not in tests.index


def test_welch_anova_of_two_groups_is_the_t_test_and_of_three_is_statsmodels(rng):
    from statsmodels.stats.oneway import anova_oneway

    from mri_jax.cohort.demographics import _welch_anova

    a, b, c = rng.normal(0, 1, 20), rng.normal(0.5, 3, 31), rng.normal(1, 2, 12)
    statistic, p = _welch_anova([a, b])
    t = stats.ttest_ind(a, b, equal_var=False)
    assert (statistic, p) == pytest.approx((t.statistic**2, t.pvalue))
    reference = anova_oneway([a, b, c], use_var="unequal", welch_correction=True)
    assert _welch_anova([a, b, c]) == pytest.approx((reference.statistic, reference.pvalue))


def test_tables_as_text(table):
    described = describe(table)
    groups = groups_table(described)
    assert groups.header == ("cohort", "class", "n", "female", "age (years)", "MMSE")
    rows = [[cell.text for cell in row] for row in groups.rows]
    assert rows[3][0:3] == ["AIBL", "AD", "10"]
    assert rows[3][5] == "– [10]"
    assert "not corrected" in as_markdown(described)
    latex = as_latex(describe(table.assign(cohort="A_1 & 50%")))
    assert r"A\_1 \& 50\%" in latex
    assert latex.count(r"\\") == 1 + 3
    assert all(line.count(" & ") == 5 for line in latex.splitlines() if r"\\" in line)


def test_one_subject_and_one_class():
    one = pd.DataFrame(
        {"subject_id": ["s"], "session_id": ["a"], "cohort": ["X"], "diagnosis": ["AD"],
         "age": [70.0], "sex": ["F"], "image": [""]}
    )  # fmt: skip
    described = describe(one)
    assert described.tests.empty
    assert "70.0 ± –" in as_markdown(described)


def test_the_papers_counts_stand_beside_ours(table):
    text = beside_paper(table)
    assert "| ADNI1  | AD    | 20   | 205   |" in text
    assert "| AIBL   | pMCI  | 0    | 11    |" in text
    assert beside_paper(table.assign(cohort="mine")) == ""
