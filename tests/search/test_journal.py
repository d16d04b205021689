"""The journal: what processes append, whole lines alone, however one of them ends."""

import subprocess
import sys

import pytest
from etils import epath

from mri_jax.errors import UserError
from mri_jax.search.journal import NAME, Journal


def lines(folder) -> list[dict]:
    return list(Journal(epath.Path(folder)).read_logs(0))


@pytest.mark.parametrize("torn", [b'{"c', b'{"c":3}', b"\0\0\0", b"{"])
def test_a_torn_last_line_is_not_read_and_is_cut_before_the_next_is_appended(tmp_path, torn):
    writer = Journal(epath.Path(tmp_path))
    writer.append_logs([{"a": 1}, {"b": 2}])
    with (tmp_path / NAME).open("ab") as file:
        file.write(torn)
    assert lines(tmp_path) == [{"a": 1}, {"b": 2}]
    Journal(epath.Path(tmp_path)).append_logs([{"d": 4}])
    assert (tmp_path / NAME).read_bytes() == b'{"a":1}\n{"b":2}\n{"d":4}\n'


def test_a_reader_goes_on_where_it_was(tmp_path):
    journal = Journal(epath.Path(tmp_path))
    assert list(journal.read_logs(0)) == []
    journal.append_logs([{"n": 0}, {"n": 1}])
    assert [line["n"] for line in journal.read_logs(1)] == [1]
    Journal(epath.Path(tmp_path)).append_logs([{"n": 2}])
    assert [line["n"] for line in journal.read_logs(2)] == [2]
    assert list(journal.read_logs(3)) == []
    assert [line["n"] for line in journal.read_logs(0)] == [0, 1, 2]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"n":0}\nrubbish\n{"n":2}\n')
    with pytest.raises(UserError, match="line 2: is not as it was written"):
        lines(tmp_path)


_WRITER = """
import sys
from etils import epath
from mri_jax.search.journal import Journal
journal = Journal(epath.Path(sys.argv[1]))
for n in range(40):
    journal.append_logs([{"writer": sys.argv[2], "n": n, "long": "x" * 5000}])
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    started = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), name]) for name in "ab"
    ]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    found = lines(tmp_path)
    assert len(found) == 80
    for name in "ab":
        assert [line["n"] for line in found if line["writer"] == name] == list(range(40))
