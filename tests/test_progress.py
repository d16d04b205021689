import io
import os
import subprocess
import sys

import pytest

from mri_jax import progress as progressing
from mri_jax.progress import Progress, duration


def test_what_is_left_follows_from_the_rate_after_the_first_items(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 50.0, 50.0, 50.0, 56.0, 56.0])
    monkeypatch.setattr(progressing.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(14, "scan", "read", every=0.0, stream=stream) as progress:
        progress.advance(0)
        progress.advance(2)  # after 50 s, most of them compilation
        progress.advance(3)  # 6 s for three
    assert stream.getvalue().splitlines() == [
        "read: 0/14 scans, 1 s",
        "read: 2/14 scans, 50 s",
        "read: 5/14 scans, 56 s, 18 s left",
    ]


def test_compiling_is_said_before_the_first_item_has_come():
    plain, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    bars = [Progress(9, "map", "explain", stream=s, compiles=True) for s in (plain, terminal)]
    assert plain.getvalue() == "explain: compiling, then the first map\n"
    assert terminal.getvalue().rsplit("\r", 1)[1].endswith("compiling, then the first map]")
    for bar in bars:
        with bar:
            bar.advance()
    assert "1/9" in plain.getvalue()
    assert "compiling" not in terminal.getvalue().rsplit("\r", 1)[1]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"),
     (99.6, "2 min"), (7199, "2 h 0 min"), (360_000, "100 h 0 min")],
)  # fmt: skip
def test_a_duration_is_told_in_units_of_its_size(seconds, told):
    assert duration(seconds) == told


def test_a_sign_that_the_locale_lacks_is_printed_as_its_escape():
    code = "from mri_jax.progress import print_in_any_locale as p; p(); print('5 \\u00b1 1')"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=ascii_only, capture_output=True, encoding="ascii"
    )
    assert (done.returncode, done.stdout) == (0, "5 \\xb1 1\n"), done.stderr
