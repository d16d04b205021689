"""The flow of subjects as a picture: a column a cohort, boxes down, exclusions at the side."""

import io
import textwrap

import pandas as pd
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import files
from mri_jax.cohort import flow as flows

WIDTH, LINE, GAP, FONT = 5.2, 0.19, 0.32, 8.5
BOX = {"boxstyle": "square,pad=0.45", "facecolor": "white", "edgecolor": "#333333", "lw": 0.9}
ASIDE = {**BOX, "facecolor": "#f3f3f3", "edgecolor": "#888888"}
ARROW = {"arrowstyle": "-|>", "color": "#333333", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}


def write(path: epath.PathLike, flow: pd.DataFrame) -> None:
    """Draw a flow (`mri_jax.cohort.flow`) as a PNG of 150 dots an inch."""
    buffer = io.BytesIO()
    draw(flow).savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())


def draw(flow: pd.DataFrame) -> Figure:
    """The picture.

    Args:
      flow: A flow that adds up.

    Returns:
      A figure of one column a cohort; its height follows from the longest column.
    """
    columns = [(str(name), _boxes(rows)) for name, rows in flow.groupby("cohort", sort=True)]
    height = max(sum(_height(main, aside) for main, aside in boxes) for _, boxes in columns) + 0.6
    figure = Figure(figsize=(WIDTH * len(columns), height), layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH * len(columns)), ylim=(0, height))
    axes.axis("off")
    for place, (cohort, boxes) in enumerate(columns):
        left = place * WIDTH
        axes.text(left + 1.35, height - 0.25, cohort, weight="bold", ha="center", size=FONT + 2)
        _column(axes, left, height - 0.5, boxes)
    return figure


def _column(axes: Axes, left: float, top: float, boxes: list[tuple[list[str], list[str]]]) -> None:
    """Boxes from top to bottom; ``aside`` is what is excluded on the way to the next box."""
    before = None
    for main, aside in boxes:
        tall = _height(main, aside)
        own = LINE * len(main) + 0.25
        middle = top - tall + own / 2 + GAP / 2
        x = left + 1.35
        axes.text(x, middle, "\n".join(main), ha="center", va="center", size=FONT, bbox=BOX)
        if before is not None:
            axes.annotate("", (x, middle + own / 2), (x, before), arrowprops=ARROW)
        if aside and before is not None:
            beside = (before + middle + own / 2) / 2
            axes.text(left + 2.35, beside, "\n".join(aside), va="center", size=FONT - 1, bbox=ASIDE)
            axes.annotate("", (left + 2.2, beside), (x, beside), arrowprops=ARROW)
        before = middle - own / 2
        top -= tall


def _height(main: list[str], aside: list[str]) -> float:
    return LINE * len(main) + 0.25 + GAP + (LINE * len(aside) + 0.45 if aside else 0.25)


def _boxes(rows: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
    """For each box its lines, and the lines of what was excluded before it."""
    found = rows.loc[rows["step"] == "found", "n"].sum()
    boxes: list[tuple[list[str], list[str]]] = [([f"found (n = {found})"], [])]
    for stage in dict.fromkeys(rows["stage"]):
        here = rows[rows["stage"] == stage]
        kept, lost = here[here["step"] == "kept"], here[here["step"] == "excluded"]
        title = stage if stage == flows.ANALYSED else f"kept after {stage}"
        if stage == flows.COHORT:
            title = "in the cohort table"
        classes = [f"{name} {n}" for name, n in kept[["class", "n"]].values]
        main = [f"{title} (n = {kept['n'].sum()})", *textwrap.wrap(", ".join(classes), 34)]
        aside = [f"excluded (n = {lost['n'].sum()})"] if len(lost) else []
        for reason, of_reason in lost.groupby("reason", sort=False):
            parts = ", ".join(f"{name} {n}" for name, n in of_reason[["class", "n"]].values)
            text = f"{reason} {of_reason['n'].sum()} ({parts})"
            aside += textwrap.wrap(text, 44, subsequent_indent="   ")
        boxes.append((main, aside))
    return boxes
