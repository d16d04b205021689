"""Laying out and rendering figures takes most of the time of a report."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from matplotlib.layout_engine import ConstrainedLayoutEngine


@contextlib.contextmanager
def unrendered() -> Iterator[None]:
    """Has figures made within the block, but not laid out or rendered.

    What is rendered is looked at in `test_report.py`.
    """
    with (
        patch.object(ConstrainedLayoutEngine, "execute", lambda self, figure: None),
        patch("mri_jax.showing.figures.image", lambda figure, kind: kind.encode()),
    ):
        yield
