import pandas as pd
import pytest

from mri_jax.cohort.reading import disagreeing_rows, read_rows, to_numbers
from mri_jax.errors import UserError
from mri_jax.problems import Problem, TableError, refuse

AB = {"a": ("A",), "b": ("B", "bee")}


def test_columns_by_alias_and_rows_by_number(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffx,BEE,a\n1, two ,3\n\n4,,5\n".encode())
    frame = read_rows(path, AB)
    assert frame.to_dict("index") == {2: {"a": "3", "b": "two"}, 4: {"a": "5", "b": ""}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"A;B\n1;2\n", r"row 1: separated by ';'; must be separated by commas"),
        (b"A\tB\n1\t2\n", r"row 1: separated by tab; must be separated by commas"),
        (b"A,B\n1,2\n3,caf\xe9\n", r"row 3: byte b'\\xe9' is not UTF-8"),
        ("A,B\n1,2\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"A,C\n1,2\n", "column B or bee is missing; found A, C"),
        (b"A,A,B\n1,2,3\n", "column 'A' occurs twice"),
        (b"A,B\n1,2\n1,2,3\n4,5\n6,7,8,9\n", "row 3: has 3 cells, the header has 2"),
        (b"A,B\n1,2\n1,2,3\n4,5\n6,7,8,9\n", "row 5: has 4 cells, the header has 2"),
        (b"A,B\n1,2\n\n1\n", "row 4: has 1 cell, the header has 2"),
        (b'A,B\n"1,1",2\n"x",2,3\n', "row 3: has 3 cells, the header has 2"),
        (b"", "is empty; a table begins with the names of its columns"),
    ],
)
def test_what_is_no_table(tmp_path, data, message):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_rows(path, AB)


def test_absent_and_tsv(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "none.csv", AB)
    (tmp_path / "t.tsv").write_text("A,B\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="must be separated by tabs"):
        read_rows(tmp_path / "t.tsv", AB)


def test_impossible_numbers():
    problems: list[Problem] = []
    numbers = to_numbers(pd.Series(["7", "x", "-4", "inf", "99"], name="N"), "f", problems, 0, 30)
    assert numbers.dropna().tolist() == [7.0]
    assert [(p.value, p.rule) for p in problems] == [
        ("x", "is not a number"), ("inf", "is not a number"), ("99", "must lie between 0 and 30"),
    ]  # fmt: skip


def test_repeated_rows_collapse_and_disagreeing_ones_are_named():
    frame = pd.DataFrame({"k": ["1", "1", "2", "2"], "v": ["a", "a", "a", "b"]}, index=[2, 3, 4, 5])
    problems: list[Problem] = []
    kept = disagreeing_rows(frame, ["k"], "f", problems)
    assert kept.index.tolist() == [2, 4]
    assert [(p.row, p.column, p.value) for p in problems] == [(5, "v", "b")]


def test_many_faults_of_a_kind_are_counted():
    faults = [Problem("f", row, "c", str(row), "is wrong") for row in range(2, 102)]
    with pytest.raises(TableError) as error:
        refuse(faults)
    lines = str(error.value).splitlines()
    assert len(lines) == 51
    assert lines[0] == "f: row 2: column c: '2' is wrong"
    assert lines[-1] == "f: column c: 50 more rows of the same kind (is wrong)"
    assert len(error.value.problems) == 100
