"""Tables as text: what is read, and that nothing is read that could be meant in two ways."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax import delimited
from mri_jax.cells import NO_VALUE
from mri_jax.delimited import (
    MISSING,
    decode,
    further_words,
    is_missing,
    parse,
    words_for_missing,
)
from mri_jax.errors import UserError

CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"],
                             exclude_characters="\ufeff"), max_size=6)  # fmt: skip
WORD = st.text("abc0.5-", min_size=1, max_size=4)


def cells(name: str, text: str) -> list[tuple[str, ...]]:
    return list(parse(name, decode(name, text.encode())).cells)


@st.composite
def tables(draw, cell):
    width = draw(st.integers(2, 4))
    header = [f"name{i}" for i in range(width)]
    body = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=4))
    return header, body


@settings(deadline=None)
@given(tables(CELL), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_what_is_written_is_read_again(table, ends, mark):
    header, body = table
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ends).writerows([header, *body])
    data = ("\ufeff" if mark else "") + text.getvalue()
    wanted = [tuple(cell.strip() for cell in row) for row in body]
    wanted = [row for row in wanted if any(row) and row != tuple(header)]
    # A space before a quotation mark within a quoted cell looks like one before a quoted cell.
    if any(cell[:1].isspace() and cell.lstrip().startswith('"') for row in body for cell in row):
        return
    assert cells("t.csv", data) == wanted


@settings(deadline=None)
@given(tables(CELL.filter(lambda c: '"' not in c.strip()[:1] + c.strip()[-1:])))
def test_tsv_has_no_quoting(table):
    header, body = table
    text = "\n".join("\t".join(row) for row in [header, *body]) + "\n"
    wanted = [tuple(cell.strip() for cell in row) for row in body]
    assert cells("t.tsv", text) == [row for row in wanted if any(row)]


@settings(deadline=None)
@given(tables(WORD), st.data())
def test_a_mutated_table_is_refused_or_read_as_it_was(table, data):
    header, body = table
    lines = [",".join(row) for row in [header, *body]]
    right = cells("t.csv", "\n".join(lines) + "\n")
    number = data.draw(st.integers(0, len(lines) - 1), "row")
    line = lines[number]
    places = [0, *(i for i, c in enumerate(line) if c == ","), len(line)]
    place = data.draw(st.sampled_from(places), "place")
    kind = data.draw(st.sampled_from(
        ["delimiter", "no delimiter", "line end", "no line end", "quote", "nul", "mark", "return"]
    ), "kind")  # fmt: skip
    added = {"delimiter": ",", "line end": "\n", "quote": '"', "nul": "\0", "mark": "\ufeff",
             "return": "\r"}  # fmt: skip
    if kind in added:
        start = place + (kind == "quote" and 0 < place < len(line))
        lines[number] = line[:start] + added[kind] + line[start:]
        text = "\n".join(lines) + "\n"
    elif kind == "no delimiter":
        lines[number] = line.replace(",", "", 1)
        text = "\n".join(lines) + "\n"
    else:
        text = "\n".join(lines[: number + 1]) + "\n".join(lines[number + 1 :]) + "\n"
    try:
        found = cells("t.csv", text)
    except UserError:
        return
    if kind == "quote" and place == len(line):  # no cell is opened by it: it is text
        found = [tuple(cell.replace('"', "") for cell in row) for row in found]
    # The header and its only row on one line are a header without rows.
    assert found == ([] if (kind, len(body), number) == ("no line end", 1, 0) else right)


@settings(deadline=None)
@given(tables(WORD), st.data())
def test_a_cut_table_is_refused_or_known_to_be_cut(table, data):
    header, body = table
    text = "".join(",".join(row) + "\n" for row in [header, *body])
    whole = cells("t.csv", text)
    size = data.draw(st.integers(1, len(text)))
    try:
        rows = parse("t.csv", text[:size])
    except UserError:
        return
    if rows.ended or not rows.cells:
        assert list(rows.cells) == whole[: len(rows.cells)]
    else:
        assert list(rows.cells)[:-1] == whole[: len(rows.cells) - 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2,5\n3,4\n", "row 2: has 3 cells, the header has 2 (a comma within a cell"),
        ("a,b\n1,2,\n3,4\n", "row 2: has 3 cells, the header has 2 (delimiters without cells"),
        ("a,b\nr1,1,2\nr2,3,4\n", "row 1: every row has 3 cells, the header names 2 columns"),
        ("a,b\n1\n", "row 2: has 1 cell, the header has 2"),
        (
            'a,b\n1,"x\n2,y\n',
            "row 2: a quotation mark opens a cell and none closes it; remove it, or",
        ),
        ('a,b\n1,"x" y\n', "row 2: text follows the quotation mark that closes a cell; double a"),
        ('a,b\n1,"x\n2,"\n', "row 2: a quoted cell spans 2 lines that look like rows"),
        ('a,b,c\n1,"x,3\n2,",4\n', "row 2: a quoted cell spans 2 lines that look like rows"),
        ('a,b\n1, "x"\n', "row 2: a space stands before a quotation mark"),
        ("a,b\n1,2\na,b\n3,4\n", "row 3: repeats the header"),
        ("a,b\n1,2\n\ufeffa,b\n", "row 3: holds a byte-order mark within the file"),
        ("a,b\n1,\0\n", "row 2: holds a NUL byte"),
        ("a,b\n1,\x01D\n", "row 2: holds the control character '\\x01'"),
        ("a,,b\n1,2,3\n", "row 1: column 2 has no name, but cells"),
        ("sep=;\na;b\n", "row 1: is a note to Excel (sep=;); remove the line"),
        ("a;b\n1;2\n", "separated by ';'; must be separated by commas: save it as .csv"),
        ("a\tb\n1\t2\n", "must be separated by commas: give it a name that ends in .tsv"),
        ("", "is empty; a table begins with the names of its columns"),
        ("\n\n", "is empty; a table begins with the names of its columns"),
        ("\na,b\n1,2\n", "row 1: is blank; a table begins with the names of its columns"),
        ("a,b\n1,2\r3,4\n", "row 2: has 3 cells"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_its_row(text, said):
    with pytest.raises(UserError) as error:
        cells("t.csv", text)
    assert str(error.value).startswith("t.csv: ")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a,b\n1,2,\n3,4,\n", [("1", "2"), ("3", "4")]),
        ("a,b,,\n1,2,,\n,,,\n", [("1", "2")]),
        ("a,b,\n1,2\n", [("1", "2")]),
        (",a\n0,x\n1,y\n", [("0", "x"), ("1", "y")]),
        ('a,b\n"x, y",2\n', [("x, y", "2")]),
        ('a,b,c\n1,"two\nlines",3\n', [("1", "two\nlines", "3")]),
        ('a,b\n1,5" disk\n', [("1", '5" disk')]),
        ("a , b\n x , y \n", [("x", "y")]),
        ("a,b\n1,2", [("1", "2")]),
    ],
)
def test_what_people_write_is_read(text, wanted):
    assert cells("t.csv", text) == wanted


def test_the_quotation_marks_of_tsv_are_text_unless_they_wrap_a_cell():
    text = 'a\tb\n1\t"left" handed\n2\t"moved\n"3"\t"say ""x"""\n'
    assert cells("t.tsv", text) == [("1", '"left" handed'), ("2", '"moved'), ("3", 'say "x"')]
    with pytest.raises(UserError, match=r"row 3: has 2 cells.*spaces stand where a tab belongs"):
        cells("t.tsv", "a\tb\tc\n1\t2\t3\n4  5\t6\n")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "is UTF-16; save it as UTF-8"),
        (
            "a,b\r1,K\xf6ln\r".encode("latin-1"),
            r"row 2: byte b'\xf6' is not UTF-8 (Latin-1?); save",
        ),
        (b"PK\x03\x04rest", "is an Excel workbook or a ZIP archive, not text"),
    ],
)
def test_other_encodings_are_named_with_the_remedy(data, said):
    with pytest.raises(UserError) as error:
        decode("t.csv", data)
    assert said in str(error.value)


def test_columns_by_name_and_a_name_that_occurs_twice(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,Age,age,x,x\np,1,2,3,4\n", encoding="utf-8")
    rows = delimited.read(path)
    frame = rows.frame(["id"])
    assert frame.to_dict("index") == {2: {"id": "p"}}
    with pytest.raises(UserError, match=r"column 'x' occurs twice"):
        rows.frame(["id", "x"])
    with pytest.raises(UserError, match=r"column 'age' occurs twice \(Age, age\)"):
        rows.frame(["age"])


def test_what_stands_for_no_number_in_our_own_tables_counts_as_missing_in_those_of_others():
    assert {word.lower() for word in NO_VALUE} < MISSING
    # But there a number is one, and none is the brain's method.
    assert not {"-1", "-4", "none"} & set(NO_VALUE)


def test_one_list_of_what_is_missing():
    said = pd.Series(["", "n/a", "None", "-1", "#N/A", "-", "0", "CN", "-9"])
    assert is_missing(said).tolist() == [True] * 6 + [False] * 3
    assert is_missing(said, words_for_missing("n/a,-9")).tolist() == [
        True, True, False, False, False, False, False, False, True,
    ]  # fmt: skip
    assert is_missing(said, words_for_missing("+-9")).tolist() == [True] * 6 + [False, False, True]


def test_an_archive_s_words_for_missing_are_added_to_and_never_replaced():
    assert further_words("", ()) == frozenset()
    assert further_words("+-9,Unknown,-4,7", ("7", "none")) == {"-9", "unknown"}
    with pytest.raises(UserError, match=r"put a \+ in front, which adds to it: --missing=\+-9,NA$"):
        further_words("-9,NA", ())
