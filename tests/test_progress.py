import io
import os
import re
import subprocess
import sys

from mri_jax.progress import Progress


def test_what_is_left_is_told_once_it_is_known():
    stream = io.StringIO()
    with Progress(4, "scan", "read", every=0.0, stream=stream) as progress:
        progress.advance(0)
        progress.advance(2)
    first, second = stream.getvalue().splitlines()[:2]
    assert first == "read: 0/4 scans, 0 s"
    assert re.fullmatch(r"read: 2/4 scans, \d+ s, \d+ s left", second)


def test_a_sign_that_the_locale_lacks_is_printed_as_its_escape():
    code = "from mri_jax.progress import print_in_any_locale as p; p(); print('5 \\u00b1 1')"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=ascii_only, capture_output=True, encoding="ascii"
    )
    assert (done.returncode, done.stdout) == (0, "5 \\xb1 1\n"), done.stderr
