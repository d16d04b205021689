import io
import re

from mri_jax.progress import Progress


def test_what_is_left_is_told_once_it_is_known():
    stream = io.StringIO()
    with Progress(4, "scan", "read", every=0.0, stream=stream) as progress:
        progress.advance(0)
        progress.advance(2)
    first, second = stream.getvalue().splitlines()[:2]
    assert first == "read: 0/4 scans, 0 s"
    assert re.fullmatch(r"read: 2/4 scans, \d+ s, \d+ s left", second)
