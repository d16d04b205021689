import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mri_jax.cohort.check import faults, read_all
from mri_jax.cohort.table import placed, read_table, write_table
from mri_jax.delimited import words_for_missing
from mri_jax.errors import UserError
from mri_jax.problems import TableError, refuse

HEADER = "subject_id,session_id,cohort,diagnosis,age,sex,image\n"


def table(path: Path, rows: str, header: str = HEADER) -> Path:
    path.write_text(header + rows, encoding="utf-8")
    return path


def test_a_table_written_by_hand(tmp_path):
    path = table(
        tmp_path / "t.csv",
        "p1,a,PARIS,PD,61.5,F,,3\n002_S_0295,ses-M00,ADNI1,AD,,,x.nii,\n",
        HEADER.strip() + ",updrs\n",
    )
    frame = read_table(path)
    assert frame["subject_id"].tolist() == ["p1", "002_S_0295"]
    assert frame["age"].tolist()[0] == 61.5
    assert frame["age"].isna().tolist() == [False, True]
    assert frame["updrs"].tolist()[0] == 3
    write_table(tmp_path / "again.csv", frame)
    pd.testing.assert_frame_equal(read_table(tmp_path / "again.csv"), frame)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text("abÄ .'-_1\"\n,;", min_size=1, max_size=5).filter(lambda t: t.strip()),
            st.one_of(st.none(), st.floats(0, 120)),
            st.sampled_from(["F", "M", "O", ""]),
            st.one_of(st.none(), st.floats(-1e9, 1e9), st.integers(-99, 99)),
            st.sampled_from(["", "a", "x;y", 'say "x"', "10 mm"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_again(rows):
    frame = pd.DataFrame(
        {
            "subject_id": [f"s{i}" for i in range(len(rows))],
            "session_id": "a",
            "cohort": "X",
            "diagnosis": [f"class {name.strip()}".strip() for name, *_ in rows],
            "age": [np.nan if age is None else age for _, age, *_ in rows],
            "sex": [sex for *_, sex, _, _ in rows],
            "image": "",
            "score": pd.Series([score for *_, score, _ in rows], dtype=object),
            "text": [text for *_, text in rows],
        }
    )
    path = Path(tempfile.mkdtemp()) / "t.csv"
    write_table(path, frame.assign(score=pd.to_numeric(frame["score"])))
    # A cell of several lines that look like rows would be refused.
    assume(
        not any(
            line.count(",") >= 8
            for line in path.read_text("utf-8").split("\n")[2:-1]
            if line.count('"') % 2
        )
    )
    again = read_table(path)
    for name in ("diagnosis", "sex", "text"):
        wanted = frame[name].where(frame[name] != "", np.nan) if name == "text" else frame[name]
        pd.testing.assert_series_equal(
            again[name].astype(object), wanted.astype(object), check_names=False
        )
    for name in ("age", "score"):
        found, wanted = again[name].astype(float), frame[name].astype(float)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("p1,a,X,None,60,F,\n",
         "'None' counts as missing and cannot be a name (to rename it: cohort join {path} "),
        ("p1,a,X,None,60,F,\n", "--code=None=NAME --out NEW.csv)"),
        ("p1,a,X,AD,60,F,\np2,.,X,AD,60,F,\n", "row 3: column session_id: '.' counts as missing"),
        ("p1,a,X,AD,60,F,\n\np2,b,X,,60,F,\n", "row 4: column diagnosis: is empty"),
        ("p1,a,X,AD,60,F,12,5\np2,b,X,CN,60,F,\n", "row 2: has 8 cells, the header has 7"),
        ("p1,a,X,AD,60,F,\np2,b,X,CN\n", "row 3: has 4 cells, the header has 7"),
        ("", "has the columns of a cohort table, but no row"),
    ],
)  # fmt: skip
def test_a_row_that_says_nothing_or_two_things_is_named(tmp_path, rows, said):
    path = table(tmp_path / "t.csv", rows)
    with pytest.raises(UserError) as error:
        read_table(path)
    assert said.format(path=path) in str(error.value)


def test_missing_cells_are_those_of_the_one_list_and_classes_are_renamed_before(tmp_path):
    header = HEADER.strip() + ",mmse,days_from_baseline\n"
    path = table(
        tmp_path / "t.csv", "p1,a,X,None,-4,n/a,#N/A,-1,-1\np2,a,X,AD,-,O,,28,NA\n", header
    )
    frame = read_table(path, {"None": "HC"})
    assert frame["diagnosis"].tolist() == ["HC", "AD"]
    assert frame["age"].isna().all()
    assert frame["sex"].tolist() == ["", "O"]
    assert frame["image"].tolist() == ["", ""]
    assert frame["mmse"].isna().tolist() == [True, False]
    # A distance in days can be -1.
    assert frame["days_from_baseline"].tolist()[0] == -1
    assert frame["days_from_baseline"].isna().tolist() == [False, True]
    wide = words_for_missing("+28")
    assert read_table(path, {"None": "HC"}, wide)["mmse"].isna().all()


def test_a_table_of_our_own_that_was_cut_in_its_last_cell_is_refused(tmp_path):
    header = HEADER.strip() + ",label_rules\n"
    whole = "p1,a,X,AD,60,F,,rules/1\n"
    assert len(read_table(table(tmp_path / "t.csv", whole, header))) == 1
    with pytest.raises(UserError, match="row 2: the last row has no line end"):
        read_table(table(tmp_path / "t.csv", whole[:-3], header))
    # By hand the last line end is often left out.
    assert len(read_table(table(tmp_path / "t.csv", "p1,a,X,AD,60,F,"))) == 1


def test_all_faults_of_a_table_at_once(tmp_path):
    path = table(
        tmp_path / "t.csv",
        "p1,a,X,AD,sixty,F,\np1,a,X,AD,60,F,\n,b,X,CN,60,female,\np2,b,,CN,140,M,\n"
        "002_S_0295,a,X,AD,60,F,\n099_S_0295,b,X,AD,60,F,\np3,c,X,=HYPERLINK(1),60,F,\n"
        "p1,d,X,AD,60,M,\n",
    )
    with pytest.raises(TableError) as error:
        read_table(path)
    found = {(p.row, p.column, p.value) for p in error.value.problems}
    assert found == {
        (2, "age", "sixty"),
        (3, "session_id", "p1 a"),
        (4, "subject_id", ""),
        (4, "sex", "female"),
        (5, "cohort", ""),
        (5, "age", "140"),
        (7, "subject_id", "099_S_0295"),
        (8, "diagnosis", "=HYPERLINK(1)"),
        (9, "sex", "M"),
    }
    assert str(error.value).startswith(f"{path}: row 2: column age: 'sixty' is not a number")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "subject_id,session_id\n",
            "columns 'cohort', 'diagnosis', 'age', 'sex', 'image' are missing; found subject_id",
        ),
        (HEADER.replace(",", ";"), "separated by ';'"),
    ],
)
def test_what_is_no_cohort_table(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="no such cohort table"):
        read_table(tmp_path / "none.csv")


def test_columns_that_two_tables_lack_are_told_with_what_is_wrong_with_the_others(tmp_path):
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text("subject_id,cohort,diagnosis,age,sex\np1,X,AD,sixty,F\n", encoding="utf-8")
    b.write_text("subject_id,session_id,cohort,diagnosis\np1,a,X,\n", encoding="utf-8")
    with pytest.raises(TableError) as error:
        read_all([a, b])
    first, wrong, second, empty = str(error.value).splitlines()
    there = "subject_id, cohort, diagnosis, age, sex"
    assert first == f"{a}: columns 'session_id', 'image' are missing; found {there}"
    assert wrong == f"{a}: row 2: column age: 'sixty' is not a number"
    there = "subject_id, session_id, cohort, diagnosis"
    assert second == f"{b}: columns 'age', 'sex', 'image' are missing; found {there}"
    word = "write a word of your own where there is none, e.g. unknown"
    assert empty == f"{b}: row 2: column diagnosis: is empty; {word}"


def test_images_absent_or_outside(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, place in enumerate(("out.nii", "far.nii", "in/there.nii")):
        (tmp_path / place).write_text(f"scan {number}", encoding="utf-8")
    (folder / "link.nii").symlink_to(tmp_path / "far.nii")
    path = table(
        folder / "t.csv",
        "p1,a,X,AD,60,F,there.nii\np2,a,X,AD,60,F,../out.nii\np3,a,X,AD,60,F,none.nii\n"
        f"p4,a,X,AD,60,F,link.nii\np5,a,X,AD,60,F,{folder}/there.nii\n",
    )
    found = {(p.row, p.value, p.rule.split(" the")[0]) for p in faults([path])}
    assert found == {
        (3, "../out.nii", "leaves"), (4, "none.nii", "does not exist"), (5, "link.nii", "leaves"),
        (6, f"{folder}/there.nii", "has"),
    }  # fmt: skip


def test_a_path_of_windows_is_printed_as_it_is_written_with_what_to_do(tmp_path):
    path = table(tmp_path / "t.csv", "p1,a,X,AD,60,F,scans\\a.nii\n")
    (found,) = faults([path])
    rule = r"'scans\a.nii' does not exist (folders are separated by / here, not by \; write /)"
    assert str(found) == f"{path}: row 2: column image: {rule}"


def test_persons_and_images_in_two_places(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.nii").write_bytes(b"the same scan" * 20000)
    (tmp_path / "three.nii").write_bytes(b"other scan   " * 20000)
    first = table(
        tmp_path / "a.csv", "002_S_0295,bl,ADNI1,AD,60,F,one.nii\nq,bl,ADNI1,CN,60,F,three.nii\n"
    )
    second = table(
        tmp_path / "b.csv", "sub-ADNI002S0295,m72,ADNI2,AD,66,F,\nr,bl,AIBL,CN,60,F,two.nii\n"
        "q,bl,ADNI1,CN,60,F,three.nii\n"
    )  # fmt: skip
    with pytest.raises(TableError) as error:
        refuse(faults([first, second]))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "b.csv: row 2: column subject_id: 'sub-ADNI002S0295' is in cohort ADNI2" in lines[0]
    assert "b.csv: row 3: column image: 'two.nii' has the same bytes" in lines[1]
    assert "b.csv: row 4: column session_id: 'q bl' is also in" in lines[2]
    assert len(faults([first, second], order=("ADNI1", "ADNI2"))) == 2


def test_image_paths_are_relative_within_the_folder_and_absolute_outside(tmp_path):
    frame = pd.DataFrame({"image": [f"{tmp_path}/a/b.nii", "/data/c.nii", ""]})
    assert placed(frame, tmp_path)["image"].tolist() == ["a/b.nii", "/data/c.nii", ""]


def test_a_site_in_two_spellings_is_named_with_its_first_row(tmp_path):
    first = table(tmp_path / "a.csv", "p1,a,SITE3,AD,61,F,\np2,a,A_1_2,AD,61,F,\n")
    other = table(
        tmp_path / "b.csv", "p3,a,A12,AD,61,F,\np4,a,Site_3,CN,61,F,\np5,a,Site_3,CN,,,\n"
    )
    (found,) = faults([first, other])
    assert (found.file, found.row, found.column) == (str(other), 3, "cohort")
    assert (found.value, found.rule) == (
        "Site_3", "is SITE3 but for its spelling; give one site one name"
    )  # fmt: skip
