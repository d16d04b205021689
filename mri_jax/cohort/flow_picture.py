"""The flow of subjects as a picture: a column a cohort, boxes down, exclusions at the side."""

import textwrap

import pandas as pd
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import files
from mri_jax.cohort import flow as flows
from mri_jax.showing.figures import image
from mri_jax.showing.numbers import of_class

# Inches: width of a column, its middle line, height of a text line, gap between boxes.
WIDTH, MIDDLE, LINE, GAP = 4.9, 1.25, 0.17, 0.34
TITLE, ASIDE_AT, A_ROW, FONT = 0.45, 2.35, 3, 9.0
BOX = {"boxstyle": "square,pad=0.45", "facecolor": "white", "edgecolor": "#333333", "lw": 0.9}
ASIDE = {**BOX, "facecolor": "#f3f3f3", "edgecolor": "#888888"}
ARROW = {"arrowstyle": "-|>", "color": "#333333", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}

Boxes = list[tuple[list[str], list[str]]]


def write(path: epath.PathLike, flow: pd.DataFrame) -> None:
    """Draw a flow (`mri_jax.cohort.flow`) as a PNG of 150 dots an inch."""
    files.write_bytes(path, image(draw(flow), "png", dots=150))


def draw(flow: pd.DataFrame) -> Figure:
    """Returns the picture.

    Args:
      flow: A flow that adds up.

    Returns:
      A figure of at most three cohorts side by side; its height follows from the longest.
    """
    columns = [(str(name), _boxes(rows)) for name, rows in flow.groupby("cohort", sort=True)]
    rows = [columns[start : start + A_ROW] for start in range(0, len(columns), A_ROW)]
    heights = [TITLE + 0.1 + max(_height(boxes) for _, boxes in row) for row in rows]
    wide, tall = WIDTH * max((len(row) for row in rows), default=1), sum(heights)
    figure = Figure(figsize=(wide, max(tall, 1.0)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(0, max(tall, 1.0)))
    axes.axis("off")
    top = tall
    for row, height in zip(rows, heights, strict=True):
        for place, (cohort, boxes) in enumerate(row):
            x = place * WIDTH + MIDDLE
            axes.text(x, top - 0.28, cohort, weight="bold", ha="center", size=FONT + 2)
            _column(axes, x, top - TITLE, boxes)
        top -= height
    return figure


def _column(axes: Axes, x: float, top: float, boxes: Boxes) -> None:
    """Boxes from top to bottom; exclusions beside the arrow to the box that remains."""
    for place, (main, aside) in enumerate(boxes):
        if place:
            down = _between(aside)
            axes.annotate("", (x, top - down), (x, top), arrowprops=ARROW)
            if aside:
                y, left = top - down / 2, x - MIDDLE + ASIDE_AT
                axes.annotate("", (left - 0.07, y), (x, y), arrowprops=ARROW)
                axes.text(left, y, "\n".join(aside), va="center", size=FONT - 1.5, bbox=ASIDE)
            top -= down
        tall = _own(main)
        axes.text(
            x, top - tall / 2, "\n".join(main), ha="center", va="center", size=FONT - 0.5, bbox=BOX
        )
        top -= tall


def _own(lines: list[str]) -> float:
    return LINE * len(lines) + 0.15


def _between(aside: list[str]) -> float:
    return LINE * len(aside) + 0.3 if aside else GAP


def _height(boxes: Boxes) -> float:
    return sum(_own(main) for main, _ in boxes) + sum(_between(aside) for _, aside in boxes[1:])


def _boxes(rows: pd.DataFrame) -> Boxes:
    """Returns the lines of each box, and the lines of what was excluded before it."""
    found = rows.loc[rows["step"] == "found", "n"].sum()
    boxes: Boxes = [([f"found (n = {found})"], [])]
    for stage in dict.fromkeys(rows["stage"]):
        here = rows[(rows["stage"] == stage) & (rows["n"] > 0)]
        kept, lost = here[here["step"] == "kept"], here[here["step"] == "excluded"]
        title = {flows.COHORT: "in the cohort table", flows.ANALYSED: "analysed"}.get(
            stage, f"after {stage}"
        )
        classes = ", ".join(of_class(name, n) for name, n in kept[["class", "n"]].values)
        main = [f"{title} (n = {kept['n'].sum()})", *textwrap.wrap(classes, 34)]
        aside = [f"excluded (n = {lost['n'].sum()})"] if len(lost) else []
        for reason, of_reason in lost.groupby("reason", sort=False):
            parts = ", ".join(of_class(name, n) for name, n in of_reason[["class", "n"]].values)
            text = f"{reason} {of_reason['n'].sum()} ({parts})"
            aside += textwrap.wrap(text, 42, subsequent_indent="   ")
        boxes.append((main, aside))
    return boxes
