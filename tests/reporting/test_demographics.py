from types import SimpleNamespace

import pandas as pd
import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.demographics import demographics_table, flow_table
from mri_jax.runs import results


def test_a_third_sex_and_the_first_of_two_sessions():
    cohort = pd.DataFrame(
        [
            ("p1", "ses-10", "A", "AD", 72.0, "O"),
            ("p1", "ses-2", "A", "AD", 70.0, "O"),
            ("p2", "ses-2", "A", "AD", 60.0, "F"),
            ("p3", "ses-2", "A", "AD", 61.0, ""),
        ],
        columns=["subject_id", "session_id", "cohort", "diagnosis", "age", "sex"],
    )
    made = demographics_table(SimpleNamespace(runs=[SimpleNamespace(cohort=cohort)]))
    (row,) = made.rows
    assert [cell.text for cell in row][:5] == ["A", "AD", "3", "4", "1 / 0 (1 other) (1 unknown)"]
    assert made.data["other_sex"].tolist() == [1]
    assert made.data["age_mean"].tolist() == [(70.0 + 60.0 + 61.0) / 3]


def test_classes_of_a_cohort_stand_together_whoever_comes_first():
    cohort = pd.DataFrame(
        [(f"p{i}", "bl", *of, 70.0, "F") for i, of in enumerate([("B", "CN"), ("A", "CN")] * 2)]
        + [("p4", "bl", "A", "AD", 70.0, "F")],
        columns=["subject_id", "session_id", "cohort", "diagnosis", "age", "sex"],
    )
    made = demographics_table(SimpleNamespace(runs=[SimpleNamespace(cohort=cohort)]))
    told = [tuple(cell.text for cell in row[:3]) for row in made.rows]
    assert told == [("A", "AD", "1"), ("A", "CN", "2"), ("B", "CN", "2")]


def test_the_flow_tells_who_adapts_and_who_tests(tmp_path):
    cohorts = {"ADNI1": (9, 11), "ADNI2": (15, 20), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(tmp_path / "run", cohorts=cohorts, stages=("tuned-high",))
    (folder / results.FLOW).write_text(
        "stage,step,reason,cohort,class,n\ncohort,found,,ADNI2,all,35\n", encoding="utf-8"
    )
    analysis = analyse(load_runs([str(folder)]))
    table = flow_table(analysis)
    told = {row[1].text: [cell.text for cell in row[2:]] for row in table.rows[-2:]}
    assert table.header[2:] == ("ADNI2",)
    adapting, tested = told["fine-tuned on"][0], told["tested"][0]
    rows = analysis.predictions.query("cohort == 'ADNI2' and repeat == 0 and split == 'adaptation'")
    number = rows.drop_duplicates("subject_id")["label"].value_counts()
    assert adapting == f"{number[1]} AD, {number[0]} CN"
    assert tested == f"{15 - number[1]} AD, {20 - number[0]} CN"


def test_the_flow_of_subjects_has_a_column_a_cohort(tmp_path):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(tmp_path / "flow", cohorts=cohorts)
    (folder / results.FLOW).write_text(
        "stage,step,reason,cohort,class,n\n"
        "cohort,found,,ADNI1,all,25\ncohort,found,,AIBL,all,20\n"
        "store,excluded,no volume in the store,ADNI1,AD,2\n"
        "store,excluded,no volume in the store,ADNI1,CN,3\n"
        "analysed,kept,,ADNI1,AD,9\nanalysed,kept,,ADNI1,CN,11\n"
        "analysed,kept,,AIBL,AD,8\nanalysed,kept,,AIBL,CN,12\n",
        encoding="utf-8",
    )
    table = flow_table(analyse(load_runs([str(folder)])))
    assert table.header == ("Stage", "Step", "ADNI1", "AIBL")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["cohort", "found", "25", "20"],
        ["store", "excluded: no volume in the store", "2 AD, 3 CN", "–"],
        ["analysed", "kept", "9 AD, 11 CN", "8 AD, 12 CN"],
    ]
