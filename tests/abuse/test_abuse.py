"""The quick part of ``python -m tests.abuse`` in every run of tests; all of it with ``-m slow``."""

import random
import shutil
import subprocess
import sys

import pytest

from tests.abuse import doors, made, mutations
from tests.abuse.workers import Case
from tests.conftest import ROOT


def run(*arguments: str) -> list[list[str]]:
    """The cells of the table that the command prints; it must have reached its goals."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.abuse", *arguments],
        capture_output=True,
        cwd=ROOT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_small_part_of_everything_that_must_not_break(small_run, tmp_path):
    # Training takes longer than all the rest; another run than that of other tests is not needed.
    shutil.copytree(small_run.parent, tmp_path / "results")
    made.keep_config(tmp_path / "results" / "run")
    header, _, *rows = run("--quick", "--base", str(tmp_path))
    figures = {row[0]: dict(zip(header[1:], map(int, row[1:]), strict=True)) for row in rows}
    doors = ("cohort table", "BIDS tree", "scans, preprocess", "store", "results folder", "config")
    assert all(figures[door]["tried"] >= 3 for door in doors)
    assert figures["leak attempts"]["refused"] == figures["leak attempts"]["tried"] >= 3
    assert figures["kills in preprocessing"]["done"] == 1
    for name in ("traceback", "silent", "hang", "memory"):
        assert figures["all"][name] == 0
    assert figures["all"]["refused"] >= 9


@pytest.mark.slow
def test_everything_that_must_not_break():
    _, _, *rows = run()
    assert int(rows[-1][1]) >= 1000 + 50 + 100


def test_damage_is_damage(tmp_path):
    """No mutation leaves every file as it was."""
    kinds = {
        "t.csv": "a,b,c\n1,2,3\n4,5,6\n",
        "t.json": '{"a": 1, "b": [1, 2], "c": {"d": "e"}}',
        "t.txt": "some text, of some length",
    }
    for name, content in kinds.items():
        path = tmp_path / name
        for mutation in mutations.of(path):
            changed = 0
            for seed in range(8):
                path.write_text(content, encoding="utf-8")
                mutation(random.Random(seed), path)
                same = path.is_file() and not path.is_symlink() and path.stat().st_size < 10**6
                changed += not same or path.read_text("utf-8", "replace") != content
                remove(path)
            assert changed >= 4, mutation.__name__


@pytest.mark.parametrize(
    ("name", "content", "broken"),
    [
        ("t.csv", b"a,b\n1,2\n", False),
        ("t.csv", b'a,b\n1,"2,3"\n', False),
        ("t.csv", b"a,b\n1\n", True),
        ("t.csv", b"a,a\n1,2\n", True),
        ("t.csv", b"a,b\n1,\xff\n", True),
        ("t.tsv", b"a\tb\n1\t\x1b\n", True),
        ("t.json", b'{"a": 1}', False),
        ("t.json", b'{"a": 1, "a": 2}', True),
        ("t.json", b'{"a": 1', True),
        ("t.jsonl", b'{"a": 1}\n{"a": 2}\n', False),
        ("t.npy", b"\xff", False),
    ],
)
def test_a_broken_form_is_seen_without_our_readers(tmp_path, name, content, broken):
    (tmp_path / name).write_bytes(content)
    assert doors.is_broken(tmp_path / name) == broken


def test_a_leak_of_what_is_seeable_is_no_other_meaning():
    """Damage is silent where its bytes are written down, whatever kind of damage it is."""

    def case(door, words):
        return Case(f"{door} 7: {words}", lambda: None, door)

    assert doors.is_seeable(case("store", "flip volumes/ADNI1/ADNI1-000_bl.npy"))
    assert doors.is_seeable(case("results folder", "flip stages/tune-1/network/_METADATA"))
    assert doors.is_seeable(case("cohort table", "semicolons cohort.csv"))
    assert not doors.is_seeable(case("cohort table", "odd_cell cohort.csv"))


def test_an_empty_file_can_be_damaged(tmp_path):
    for mutation in mutations.ANY:
        path = tmp_path / "commit_success.txt"
        path.write_bytes(b"")
        mutation(random.Random(1), path)
        remove(path)


def remove(path) -> None:
    """Remove a file, a folder or what else a mutation has made of it."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
