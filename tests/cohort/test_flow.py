import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort import flow, flow_picture
from mri_jax.errors import UserError

KEPT = pd.DataFrame(
    [("a", "X", "AD"), ("b", "X", "AD"), ("c", "X", "CN"), ("d", "Y", "CN"), ("d", "Y", "CN")],
    columns=["subject_id", "cohort", "diagnosis"],
)
LOST = pd.DataFrame(
    [("e", "X", "no scan", "AD"), ("f", "X", "no scan", ""), ("g", "Y", "duplicate", "CN")],
    columns=["subject_id", "cohort", "reason", "group"],
)
START = flow.start(KEPT, LOST, ("no baseline", "no scan", "duplicate"))


def test_subjects_are_counted_once_and_add_up():
    found = START[START["step"] == "found"].set_index("cohort")["n"]
    assert found.to_dict() == {"X": 5, "Y": 2}
    none = START[(START["reason"] == "no baseline") & (START["cohort"] == "X")]
    assert none[["class", "n"]].values.tolist() == [["all", 0]]


def test_stages_extend_the_flow_to_the_analysed(tmp_path):
    after = KEPT[KEPT["subject_id"] != "b"]
    lost = flow.lost_between(KEPT, after, flow.FAILED_PREPROCESSING)
    assert lost.to_dict() == {("X", "AD", "b"): "failed preprocessing"}
    longer = flow.extend(START, flow.PREPROCESSING, after, lost)
    rated = after[after["cohort"] == "X"]
    why = pd.Series({"d": "excluded by quality control: motion"})
    longer = flow.extend(longer, flow.QUALITY, rated, flow.lost_between(after, rated, why))
    last = longer[longer["stage"] == flow.QUALITY].values.tolist()
    assert last == [
        ["quality control", "excluded", "excluded by quality control: motion", "Y", "CN", 1],
        ["quality control", "kept", "", "X", "AD", 1],
        ["quality control", "kept", "", "X", "CN", 1],
        ["quality control", "kept", "", "Y", "CN", 0],
    ]
    flow.write(tmp_path / "flow.csv", longer)
    pd.testing.assert_frame_equal(flow.read(tmp_path / "flow.csv"), longer)
    text = flow.as_markdown(longer)
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["", "- failed preprocessing", "1 (AD 1)", "0", ""] in lines
    assert ["", "kept (quality control)", "2 (AD 1, CN 1)", "0", ""] in lines
    flow_picture.write(tmp_path / "flow.png", longer)
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")
    texts = [text.get_text() for text in flow_picture.draw(longer).axes[0].texts]
    assert "found (n = 5)" in texts
    assert "after preprocessing (n = 2)\nAD 1, CN 1" in texts


def test_a_class_named_by_a_number_is_told_from_how_many_are_of_it():
    rows = KEPT.assign(diagnosis=KEPT["diagnosis"].map({"AD": "1", "CN": "stage 2"}))
    made = flow.start(rows, LOST.iloc[:0])
    assert flow.lines(made).loc[("cohort", "kept", ""), "X"] == "3 (class 1: 2, class stage 2: 1)"
    texts = [text.get_text() for text in flow_picture.draw(made).axes[0].texts]
    assert "in the cohort table (n = 3)\nclass 1: 2, class stage 2: 1" in texts


def test_a_flow_that_does_not_add_up_is_refused(tmp_path):
    wrong = START.assign(n=START["n"] + (START["step"] == "found"))
    with pytest.raises(UserError, match=r"cohort X, stage cohort.*6 are not 2 excluded \+ 3 kept"):
        flow.check(wrong, "flow.csv")
    with pytest.raises(UserError, match=r"stage qc, class AD: 2 are not 0 excluded \+ 1 kept"):
        flow.extend(START, "qc", KEPT[KEPT["subject_id"] != "b"], flow.lost_between(KEPT, KEPT, ""))
    with pytest.raises(UserError, match="'cohort' is there already"):
        flow.extend(START, "cohort", KEPT, flow.lost_between(KEPT, KEPT, ""))
    (tmp_path / "flow.csv").write_text("stage,step\n", encoding="utf-8")
    with pytest.raises(UserError, match="columns 'reason', 'cohort', 'class', 'n' are missing"):
        flow.read(tmp_path / "flow.csv")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("XYZ"), st.sampled_from(["AD", "CN"]), st.integers(0, 3)),
        min_size=1,
        max_size=25,
    )
)
def test_any_losses_over_stages_add_up(people):
    """The number says after which stage a subject is lost; 3 stays to the end."""
    frame = pd.DataFrame(
        [(f"s{i}", cohort, name, last) for i, (cohort, name, last) in enumerate(people)],
        columns=["subject_id", "cohort", "diagnosis", "last"],
    )
    lost = frame[frame["last"] == 0].assign(reason="no scan", group="")
    here = frame[frame["last"] > 0]
    made = flow.start(here, lost)
    for number in (1, 2):
        after = here[here["last"] > number]
        made = flow.extend(made, f"stage {number}", after, flow.lost_between(here, after, "why"))
        here = after
    last = made[(made["stage"] == "stage 2") & (made["step"] == "kept")]
    assert last["n"].sum() == (frame["last"] == 3).sum()
    assert made.loc[made["step"] == "found", "n"].sum() == len(people)


def test_flows_of_several_tables_join():
    other = flow.start(KEPT.assign(cohort="Z"), LOST.assign(cohort="Z"))
    longer = flow.extend(other, "qc", KEPT.assign(cohort="Z"), flow.lost_between(KEPT, KEPT, ""))
    joined = flow.join([START, longer])
    assert set(joined["cohort"]) == {"X", "Y", "Z"}
    assert joined["n"].sum() == START["n"].sum() + longer["n"].sum()


def test_the_flow_beside_a_table_is_continued_and_one_that_no_longer_fits_is_not(tmp_path):
    table = tmp_path / "site.csv"
    assert flow.of_table(table, KEPT)[0].query("step == 'found'")["n"].tolist() == [3, 1]
    flow.write(flow.beside(table, "flow.csv"), START)
    found, notes = flow.of_table(table, KEPT)
    assert found.query("step == 'found'").set_index("cohort")["n"].to_dict() == {"X": 5, "Y": 2}
    assert notes == ()
    # One cohort of it alone.
    only, notes = flow.of_table(table, KEPT[KEPT["cohort"] == "Y"])
    assert set(only["cohort"]) == {"Y"}
    assert notes == ()
    # A run keeps its table beside a flow that has ended.
    ended = flow.extend(START, flow.ANALYSED, KEPT, flow.lost_between(KEPT, KEPT, ""))
    flow.write(flow.beside(table, "flow.csv"), ended)
    found, notes = flow.of_table(table, KEPT)
    assert found.query("step == 'found'").set_index("cohort")["n"].to_dict() == {"X": 3, "Y": 1}
    assert notes == ("site_flow.csv is that of a finished study: the flow starts with the table",)
    flow.write(flow.beside(table, "flow.csv"), START)
    # A subject was deleted by hand: that cohort's flow begins anew, and it is said.
    found, notes = flow.of_table(table, KEPT[KEPT["subject_id"] != "b"])
    assert found.query("step == 'found'").set_index("cohort")["n"].to_dict() == {"X": 2, "Y": 2}
    assert len(notes) == 1
    assert "site_flow.csv ends with 2 AD, 1 CN of X, and the table has 1 AD, 1 CN" in notes[0]
