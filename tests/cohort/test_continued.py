import pandas as pd

from mri_jax.cohort import continued, flow
from mri_jax.cohort.assemble import EXCLUDED_COLUMNS

TABLE = pd.DataFrame(
    [
        ("a", "1", "ADNI1", "AD"),
        ("a", "2", "ADNI1", "AD"),
        ("b", "1", "ADNI1", "CN"),
        ("c", "1", "ADNI1", "CN"),
        ("d", "1", "ADNI1", "sMCI"),
        ("e", "1", "ADNI2", "AD"),
        ("f", "1", "AIBL", "AD"),
    ],
    columns=["subject_id", "session_id", "cohort", "diagnosis"],
)


def test_from_the_cohort_table_to_the_n_analysed():
    start = flow.start(TABLE, pd.DataFrame(columns=EXCLUDED_COLUMNS))
    keys = list(TABLE[["subject_id", "session_id"]].itertuples(index=False, name=None))
    stored = [key for key in keys if key not in [("a", "1"), ("b", "1"), ("f", "1")]]
    flow1, left = continued.after_preprocessing(start, TABLE, stored, [("a", "1"), ("b", "1")])
    assert left["subject_id"].tolist() == ["a", "c", "d", "e"]
    flow2, left = continued.after_quality(flow1, left, [("c", "1")])
    used = TABLE[TABLE["subject_id"].isin(["a"])]
    flow3, left = continued.analysed(flow2, left, used)
    assert left["subject_id"].tolist() == ["a"]
    lost = flow3[(flow3["step"] == "excluded") & (flow3["n"] > 0)]
    assert lost[["stage", "reason", "cohort", "class", "n"]].values.tolist() == [
        ["preprocessing", "failed preprocessing", "ADNI1", "CN", 1],
        ["preprocessing", "not preprocessed", "AIBL", "AD", 1],
        ["quality control", "excluded by quality control", "ADNI1", "CN", 1],
        ["analysed", "class not asked for", "ADNI1", "sMCI", 1],
        ["analysed", "cohort not in the study", "ADNI2", "AD", 1],
    ]
    flow.check(flow3, "flow")
