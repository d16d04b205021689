"""Figures: one style for all, the word SIMULATED where it belongs, and their bytes."""

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

import matplotlib as mpl
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mri_jax import files
from mri_jax.filenames import safe_name
from mri_jax.showing import addresses
from mri_jax.showing.simulated import MARK

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (6, 2)), (0, (3, 1)))

ALARM = "#B00020"
"""Colour of what a reader must not overlook."""
WIDE = 8.0
"""A figure wider than this (inches) takes the whole width of a page."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
      key: File name without extension.
      caption: What it shows, plain text.
      figure: The drawing.
      narrow: The same for a narrow screen; None where the drawing is narrow enough.
    """

    key: str
    caption: str
    figure: Figure
    narrow: Figure | None = None

    @functools.cached_property
    def png(self) -> bytes:
        """The drawing as PNG."""
        return image(self.figure, "png")

    @property
    def wide(self) -> bool:
        """Whether the drawing takes the whole width of a page."""
        return self.figure.get_figwidth() > WIDE

    @functools.cached_property
    def svg(self) -> bytes:
        """The drawing as SVG."""
        return image(self.figure, "svg")

    @property
    def address(self) -> str:
        """The drawing as a page holds it: the shorter of SVG and PNG."""
        return _shorter(self.svg, self.png)

    @property
    def narrow_address(self) -> str:
        """The drawing for a narrow screen as a page holds it; empty without one."""
        drawing = self.narrow
        return "" if drawing is None else _shorter(image(drawing, "svg"), image(drawing, "png"))


def _shorter(svg: bytes, png: bytes) -> str:
    return min(addresses.of_svg(svg), addresses.of_png(png), key=len)


def wrapped(label: str, width: int = 30) -> str:
    """Returns a label in lines of about so many characters, for a drawing."""
    return textwrap.fill(label, width, break_long_words=False)


def write(folder: epath.Path, picture: Picture) -> None:
    """Write a picture as ``KEY.png`` and ``KEY.svg``."""
    place = folder / safe_name(picture.key, keep="_")
    files.write_bytes(f"{place}.png", picture.png)
    files.write_bytes(f"{place}.svg", picture.svg)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Applies the style file within the block; the process's settings stay as they were."""
    path = resources.files("mri_jax.showing") / "assets" / "figures.mplstyle"
    with resources.as_file(path) as file, mpl.rc_context(fname=str(file)):
        yield


def drawn(
    draw: Callable[[Figure], None], width: float, height: float, simulated: bool, title: str = ""
) -> Figure:
    """Returns a figure of that size (inches), without pyplot's global state.

    A band above it holds the title at the left and the word SIMULATED at the right, so that
    neither can cover the other or the drawing.
    """
    lines = title.count("\n") + 1 if title else 0
    band = max(0.2 * lines, 0.2 if simulated else 0.0) + (0.06 if title or simulated else 0.0)
    with style():
        rect = (0, 0, 1, height / (height + band))
        figure = Figure(figsize=(width, height + band))
        figure.set_layout_engine("constrained", rect=rect)
        FigureCanvasAgg(figure)
        draw(figure)
        top = 1 - 0.06 / (height + band)
        if title:
            figure.text(0.006, top, title, ha="left", va="top", fontsize=9.5, weight="bold")
        if simulated:
            figure.text(
                0.994, top, MARK, ha="right", va="top", fontsize=8,
                color=ALARM, weight="bold",
            )  # fmt: skip
        # The layout is found here, not again for each format; labels beside panels of fixed aspect
        # need a second look. No engine stays: with one, matplotlib draws each format twice.
        layout = figure.get_layout_engine()
        if layout is not None:  # `draw` may have taken it away
            layout.execute(figure)
            if any(axes.get_aspect() != "auto" for axes in figure.axes):
                layout.execute(figure)
        figure.set_layout_engine(None)
    return figure


def image(figure: Figure, kind: str, dots: int | None = None) -> bytes:
    """Returns a figure as ``png`` or ``svg``; the same figure gives the same bytes.

    Args:
      figure: The figure.
      kind: ``png`` or ``svg``.
      dots: Dots an inch of a PNG; by default as the style file says.
    """
    buffer = io.BytesIO()
    # A date in the metadata would change the bytes, and would be a date in a shared report.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with style():
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=dots)
    return buffer.getvalue()
