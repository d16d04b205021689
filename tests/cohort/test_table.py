from pathlib import Path

import pandas as pd
import pytest

from mri_jax.cohort.check import refuse_all
from mri_jax.cohort.problems import TableError
from mri_jax.cohort.table import placed, read_table, write_table
from mri_jax.errors import UserError

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
        ("subject_id,session_id\n", "column 'cohort' is missing; found subject_id, session_id"),
        (HEADER.replace(",", ";"), "separated by ';'"),
    ],
)
def test_what_is_no_cohort_table(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="no such cohort table"):
        read_table(tmp_path / "none.csv")


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
    with pytest.raises(TableError) as error:
        refuse_all([path])
    found = {(p.row, p.value, p.rule.split(" the")[0]) for p in error.value.problems}
    assert found == {
        (3, "../out.nii", "leaves"), (4, "none.nii", "does not exist"), (5, "link.nii", "leaves"),
        (6, f"{folder}/there.nii", "has"),
    }  # fmt: skip


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
        refuse_all([first, second])
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "b.csv: row 2: column subject_id: 'sub-ADNI002S0295' is in cohort ADNI2" in lines[0]
    assert "b.csv: row 3: column image: 'two.nii' has the same bytes" in lines[1]
    assert "b.csv: row 4: column session_id: 'q bl' is also in" in lines[2]
    with pytest.raises(TableError) as error:
        refuse_all([first, second], order=("ADNI1", "ADNI2"))
    assert len(error.value.problems) == 2


def test_image_paths_are_relative_within_the_folder_and_absolute_outside(tmp_path):
    frame = pd.DataFrame({"image": [f"{tmp_path}/a/b.nii", "/data/c.nii", ""]})
    assert placed(frame, tmp_path)["image"].tolist() == ["a/b.nii", "/data/c.nii", ""]
