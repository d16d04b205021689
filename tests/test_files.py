"""Reading what others made, writing tables that spreadsheets may open, and names as files."""

import os
import re
import socket
import stat
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax import files
from mri_jax.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
FORMULAS = st.builds(
    lambda apostrophes, sign, rest: "'" * apostrophes + sign + rest,
    st.integers(0, 3),
    st.sampled_from("=+-@\t\r\n＝＋－＠"),
    TEXTS,
)


def test_special_files_are_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket"))
    (tmp_path / "device").symlink_to("/dev/zero")
    found = {}

    def read(name: str) -> None:
        with pytest.raises(UserError) as caught:
            files.read_json(tmp_path / name)
        found[name] = str(caught.value)

    for name in ("pipe", "folder", "socket", "device", "absent"):
        thread = threading.Thread(target=read, args=(name,), daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), f"{name} hangs"
    assert found == {
        "pipe": f"{tmp_path}/pipe: is a pipe, not a file",
        "folder": f"{tmp_path}/folder: is a folder, not a file",
        "socket": f"{tmp_path}/socket: is a socket, not a file",
        "device": f"{tmp_path}/device: is a device, not a file",
        "absent": f"{tmp_path}/absent: no such file",
    }


def test_a_file_that_became_a_pipe_after_it_was_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "check_regular", lambda path, limit=None: 0)
    with pytest.raises(UserError, match="is a pipe"):
        files.read_bytes(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "file/below"])
def test_impossible_paths_are_one_line(tmp_path: Path, name: str):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        files.read_bytes(f"{tmp_path}/{name}")


def test_a_loop_of_links_is_one_line(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="symbolic links"):
        files.read_text(tmp_path / "loop")


def test_no_more_than_the_limit_is_read(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x" * 11)
    assert files.read_bytes(tmp_path / "file", 11) == b"x" * 11
    with pytest.raises(UserError, match=r"holds 11 bytes; at most 10 are read"):
        files.read_bytes(tmp_path / "file", 10)
    # Files of the system hold more than the nothing that they say they hold.
    with pytest.raises(UserError, match="at most 5 are read"):
        files.read_bytes("/proc/self/status", 5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfea\0", "is UTF-16"),
        (b"a\nb\xe9\n", "row 2: byte b'\\xe9' is not UTF-8"),
        (b"a\nb\0\n", "row 2: a NUL byte"),
    ],
)
def test_text_that_is_not_utf8_names_its_row(tmp_path: Path, data: bytes, said: str):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UserError, match=re.escape(said)):
        files.read_text(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[NaN]", "NaN is no finite number"),
        ("[-Infinity]", "-Infinity is no finite number"),
        ("[1e999]", "1e999 is no finite number"),
        ("[" + "9" * 5000 + "]", "Exceeds the limit"),
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' occurs twice"),
        ('["\\ud800"]', "half a character"),
        ("[]", "must hold an object, not a list"),
        ("3", "must hold an object, not 3"),
        ("null", "must hold an object, not None"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / "file.json", dict)
    assert said in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 200
    assert "\n" not in str(caught.value)


def test_json_of_another_encoding_or_size_is_one_line(tmp_path: Path):
    (tmp_path / "file.json").write_bytes('{"ä": 1}'.encode("latin-1"))
    with pytest.raises(UserError, match="row 1"):
        files.read_json(tmp_path / "file.json")
    with open(tmp_path / "file.json", "wb") as file:
        file.truncate(files.JSON_BYTES + 1)
    with pytest.raises(UserError, match="at most"):
        files.read_json(tmp_path / "file.json")


def test_whole_characters_in_json_are_read(tmp_path: Path):
    (tmp_path / "file.json").write_text('["\\ud83d\\ude00"]', encoding="utf-8")
    assert files.read_json(tmp_path / "file.json", list) == ["\N{GRINNING FACE}"]


@given(
    st.lists(
        st.tuples(
            st.one_of(TEXTS, FORMULAS),
            st.one_of(TEXTS, FORMULAS),
            st.floats(allow_infinity=False),
            st.integers(-(2**62), 2**62),
        ),
        min_size=1,
        max_size=5,
    ),
    FORMULAS,
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float, int]], header: str
):
    frame = pd.DataFrame(rows, columns=["subject_id", header, "logit", "n"])
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    files.write_csv(path, frame)
    text = path.read_text(encoding="utf-8")
    found = files.read_csv(path, ["subject_id", header], whole=True)
    assert found.to_dict("list").keys() == frame.to_dict("list").keys()
    assert list(found["subject_id"]) == list(frame["subject_id"])
    assert list(found[header]) == list(frame[header])
    np.testing.assert_array_equal(found["logit"].to_numpy(float), frame["logit"].to_numpy())
    assert list(found["n"]) == list(frame["n"])
    assert not re.match(r"[=@\t\r＝＋－＠]", text)


def test_cells_that_a_spreadsheet_would_run_stand_behind_an_apostrophe(tmp_path: Path):
    ids = ["=1+1", "+CMD", "-2+3", "@SUM", "\tx", "'=1", "-1.5e3", "+7", "sub-01", "'quoted", "-"]
    files.write_csv(tmp_path / "t.csv", pd.DataFrame({"=id": ids, "n": -1.5}))
    lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "'=id,n"
    written = [line.split(",")[0] for line in lines[1:]]
    assert written == [
        *("'=1+1", "'+CMD", "'-2+3", "'@SUM", "'\tx", "''=1"),
        *("-1.5e3", "+7", "sub-01", "'quoted", "'-"),
    ]
    assert {line.split(",")[1] for line in lines[1:]} == {"-1.5"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n1\n", "row 2: has another number of cells (1) than the header (2)"),
        ("a,b\n1,2,3\n", "row 2: has another number of cells (3) than the header (2)"),
        ('a,b\n1,"2\n', "row 2: a quotation mark opens a cell and none closes it; remove it, or"),
        ('a,b\n1,"2"x\n', "row 2: text follows the quotation mark that closes a cell; double a"),
        (f'a,b\n1,"{"x" * 131_073}"\n', "row 2: a cell is longer than 131,072 characters; is a"),
        ("a,a\n1,2\n", "column 'a' occurs twice"),
        ("a,b\n1,2", "it was cut short"),
    ],
)
def test_tables_that_can_be_read_two_ways_are_refused(tmp_path: Path, text: str, said: str):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(said)):
        files.read_csv(tmp_path / "t.csv", whole=True)


def test_missing_numbers_are_missing_and_texts_are_what_they_say(tmp_path: Path):
    (tmp_path / "t.csv").write_text("cohort,age\nNA,NA\nNone,\n,3.5\n", encoding="utf-8")
    found = files.read_csv(tmp_path / "t.csv", ["cohort"])
    assert list(found["cohort"]) == ["NA", "None", ""]
    assert list(found["age"].isna()) == [True, True, False]


def test_home_folders_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.expanded("~/scans") == "/home/me/scans"
    assert files.expanded(Path("~")) == "/home/me"
    assert files.expanded("a/~b") == "a/~b"
    assert files.expanded("gs://bucket/~") == "gs://bucket/~"
    with pytest.raises(UserError, match="no such home folder"):
        files.expanded("~nobody-of-this-name/x")


def test_files_have_the_rights_that_the_umask_says(tmp_path: Path):
    before = os.umask(0o027)
    try:
        files.write_csv(tmp_path / "new" / "t.csv", pd.DataFrame({"subject_id": ["a"]}))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "t.csv").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750


def test_text_that_is_half_a_character_is_not_written(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be written as UTF-8"):
        files.write_text(tmp_path / "t.csv", "scan-\udce9.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_its_folder_is_named_with_the_folder(tmp_path):
    (tmp_path / "store.json").touch()
    (tmp_path / "index.csv").touch()
    for holds, here in ((("store.json",), f", here {tmp_path}"), (("plan.json",), "")):
        with pytest.raises(UserError) as error:
            files.refuse_file(tmp_path / "index.csv", "folder of the store", *holds)
        said = f"{tmp_path / 'index.csv'}: is a file; give the folder of the store{here}"
        assert str(error.value) == said
    files.refuse_file(tmp_path, "folder of the store")
    files.refuse_file(tmp_path / "none", "folder of the store")
