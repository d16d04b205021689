"""Any visit histories at all: each unit is kept or excluded exactly once, whatever the order."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort import flow
from mri_jax.cohort.assemble import REASONS, CohortSource, SubjectSelection, assemble
from mri_jax.cohort.identity import month_of_visit
from mri_jax.cohort.images import ImageChoice, describe
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.table import validate

START = pd.Timestamp("2006-01-01")
CODES = ("bl", "m06", "m12", "m24", "m36", "m48", "uns1")
visit = st.tuples(
    st.sampled_from(CODES),
    st.sampled_from(["CN", "MCI", "AD", ""]),
    st.sampled_from(["ADNI1", "ADNI2"]),
    st.booleans(),
)
subject = st.tuples(
    st.lists(visit, min_size=1, max_size=6, unique_by=lambda v: (v[0], v[2])),
    st.sampled_from(["CN", "SMC", "LMCI", ""]),
    st.lists(st.tuples(st.integers(-120, 400), st.sampled_from(["MPRAGE", "MPR; N3", "FLAIR"])),
             max_size=3),
)  # fmt: skip


def source_of(people: list) -> CohortSource:
    visits, images = [], []
    for number, (history, group, scans) in enumerate(people):
        name = f"sub-{number}"
        for code, dx, phase, dated in history:
            month = month_of_visit(code)
            days = pd.Timedelta(days=0 if month != month else round(30.4 * month))
            origin = min(p for _, _, p, _ in history)
            visits.append(
                {
                    "subject_id": name, "cohort": phase, "origin": origin, "code": code,
                    "session": "", "month": month, "date": START + days if dated else pd.NaT,
                    "diagnosis": dx, "group": group, "age": 70.0, "born": float("nan"),
                    "sex": "F", "baseline_rank": 0.0 if code == "bl" else float("nan"),
                }
            )  # fmt: skip
        for place, (day, description) in enumerate(scans):
            images.append(
                {
                    "subject_id": name, "image_id": f"{number}{place}", "visit": "",
                    "date": START + pd.Timedelta(days=day), "description": description, "kind": "",
                    "field": 3.0, "quality": float("nan"), "selected": False, "preference": 0.0,
                    "instead": "",
                    "path": f"{number}{place}.nii",
                }
            )  # fmt: skip
    columns = ["subject_id", "image_id", "visit", "date", "description", "kind", "field",
               "quality", "selected", "preference", "path", "instead"]  # fmt: skip
    table = pd.DataFrame(images, columns=columns)
    table = table.astype({"date": "datetime64[ns]", "field": float, "preference": float})
    frame = pd.DataFrame(visits).astype({"date": "datetime64[ns]"})
    return CohortSource(frame, describe(table))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(subject, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from(["visit", "date"]),
    st.sampled_from(["exclude", "keep"]),
)
def test_every_unit_is_kept_or_excluded_exactly_once(people, random, clock, continuing):
    source = source_of(people)
    rules, choice = LabelRules(clock=clock), ImageChoice()
    made = assemble(source, rules, choice, SubjectSelection(continuing=continuing))
    units = set(source.visits[["subject_id", "cohort"]].itertuples(index=False, name=None))
    kept = list(made.table[["subject_id", "cohort"]].itertuples(index=False, name=None))
    lost = list(made.excluded[["subject_id", "cohort"]].itertuples(index=False, name=None))
    assert sorted(kept + lost) == sorted(units)
    assert set(made.excluded["reason"]) <= set(REASONS)
    flow.check(made.flow, "flow")
    assert made.flow.loc[made.flow["step"] == "found", "n"].sum() == len(units)
    if continuing == "exclude":
        validate(made.table, "table")
        assert not made.table["subject_id"].duplicated().any()

    def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
        order, columns = list(range(len(frame))), list(frame.columns)
        random.shuffle(order)
        random.shuffle(columns)
        return frame.iloc[order][columns]

    again = assemble(
        CohortSource(shuffled(source.visits), shuffled(source.images)), rules, choice,
        SubjectSelection(continuing=continuing),
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.table, made.table)
    pd.testing.assert_frame_equal(again.excluded, made.excluded)
    pd.testing.assert_frame_equal(again.flow, made.flow)


def test_clocks_differ_when_a_visit_is_late():
    history = [("bl", "MCI", "ADNI1", True), ("m36", "AD", "ADNI1", True)]
    source = source_of([(history, "LMCI", [(0, "MPRAGE")])])
    late = source.visits.assign(date=[START, START + pd.Timedelta(days=1200)])
    made = {
        clock: assemble(
            CohortSource(late, source.images),
            LabelRules(clock=clock),
            ImageChoice(),
            SubjectSelection(),
        )
        for clock in ("visit", "date")
    }
    assert made["visit"].table["diagnosis"].tolist() == ["pMCI"]
    assert made["date"].excluded["reason"].tolist() == ["follow-up too short"]


def test_age_is_that_at_the_scan():
    history = [("bl", "CN", "ADNI1", True)]
    made = assemble(
        source_of([(history, "CN", [(73, "MPRAGE")])]),
        LabelRules(),
        ImageChoice(),
        SubjectSelection(),
    )
    assert made.table["age"].tolist() == [70.2]
    assert made.table["days_from_baseline"].tolist() == [73]
