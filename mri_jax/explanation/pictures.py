"""Mosaics, nilearn's interactive view, and the curves of the randomisation check."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nilearn import plotting

from mri_jax.explanation.sanity import ABSOLUTE_LIMIT, SIGNED_LIMIT, Similarity
from mri_jax.runs.labels import of_stage
from mri_jax.showing.figures import ALARM, LINES, MARKERS, Picture, drawn
from mri_jax.showing.simulated import MARK
from mri_jax.volumes.grids import Grid

# Template coordinates (mm) of the slices.
_CORONAL = (-34, -20, -8, 6)
_AXIAL = (-22, -6, 14, 36)
# Voxels weaker than this share of the brain's are left clear, and the colours end at the upper one.
_CLEAR, _FULL = 0.80, 0.998
_COLOURS = "RdBu_r"
FAILED_MARK = " · "


class Line(NamedTuple):
    """A line of a mosaic.

    Attributes:
      name: On the left.
      values: (X, Y, Z).
      scale: Lines of one scale share their colours.
    """

    name: str
    values: np.ndarray
    scale: str


@dataclass(frozen=True, eq=False)
class Canvas:
    """What all pictures of maps of one call have in common.

    Attributes:
      anatomy: The grey background, from `anatomy_of`.
      brain: (X, Y, Z) bool.
      grid: Grid of the maps.
      simulated: Whether the scans are simulated.
    """

    anatomy: nib.Nifti1Image
    brain: np.ndarray
    grid: Grid
    simulated: bool


def image_of(values: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """Returns (X, Y, Z) values as an image in template space."""
    return nib.Nifti1Image(np.asarray(values, np.float32), grid.affine)


def anatomy_of(mean: np.ndarray, reach: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """Returns the mean volume (X, Y, Z) as a grey background, 0 outside every brain."""
    low = float(mean[reach].min()) if reach.any() else 0.0
    return image_of(np.where(reach, mean - low, 0), grid)


def limits(values: Sequence[np.ndarray], brain: np.ndarray) -> tuple[float, float]:
    """Returns where maps become visible, and where their colours end: shared by all of them."""
    size = np.abs(np.stack([v[brain] for v in values]))
    low, high = np.quantile(size, [_CLEAR, _FULL])
    high = float(high) or float(size.max()) or 1.0
    return float(min(low, 0.9 * high)), high


def mosaic(
    key: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    canvas: Canvas,
) -> Picture:
    """Returns coronal and axial slices, a line a map.

    Args:
      key: File name without extension.
      title: Above the picture; failures of checks stand here.
      caption: Below it on the page.
      lines: From above.
      canvas: What they are drawn on.
    """
    scales = {
        name: limits([line.values for line in lines if line.scale == name], canvas.brain)
        for name in {line.scale for line in lines}
    }
    title, _, failed = title.partition(FAILED_MARK)
    top = 0.62 if failed else 0.42
    height = 1.55 * len(lines) + top

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        figure.text(0.005, 1 - 0.1 / height, title, va="top", fontsize=9.5, weight="bold")
        if failed:
            figure.text(0.005, 1 - 0.32 / height, failed, va="top", fontsize=9, color=ALARM)
        step = (1 - top / height) / len(lines)
        for number, (name, values, scale) in enumerate(lines):
            clear, full = scales[scale]
            bottom = 1 - top / height - (number + 1) * step
            figure.text(0.005, bottom + step / 2, name, va="center", fontsize=8)
            image = image_of(np.where(canvas.brain, values, 0), canvas.grid)
            for mode, left, width in (("y", 0.118, 0.39), ("z", 0.508, 0.415)):
                box = (left, bottom, width, step)
                _slices(figure, image, canvas.anatomy, mode, box, (clear, full))
            bar = figure.add_axes((0.935, bottom + 0.12 * step, 0.010, 0.76 * step))
            colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(-full, full), _COLOURS)
            figure.colorbar(colours, cax=bar, ticks=[-full, 0, full])
            bar.set_yticklabels([f"−{full:.1e}", "0", f"{full:.1e}"])
            bar.tick_params(labelsize=6.5)
            bar.grid(False)

    return Picture(key, caption, drawn(draw, 11.0, height, canvas.simulated))


def _slices(
    figure: Figure,
    image: nib.Nifti1Image,
    anatomy: nib.Nifti1Image,
    mode: str,
    box: tuple[float, float, float, float],
    scale: tuple[float, float],
) -> None:
    clear, full = scale
    display = plotting.plot_stat_map(
        image,
        bg_img=anatomy,
        display_mode=mode,
        cut_coords=list(_CORONAL if mode == "y" else _AXIAL),
        figure=figure,
        axes=box,
        colorbar=False,
        cmap=_COLOURS,
        threshold=clear,
        vmin=-full,
        vmax=full,
        black_bg=False,
        resampling_interpolation="nearest",
        annotate=False,
    )
    display.annotate(size=7)


def interactive(values: np.ndarray, title: str, canvas: Canvas) -> str:
    """Returns nilearn's interactive view as one HTML page that needs no network.

    Values are shown as shares of the largest ones, since nilearn's scale has two digits.
    """
    clear, full = limits([values], canvas.brain)
    view = plotting.view_img(
        image_of(np.where(canvas.brain, values / full, 0), canvas.grid),
        bg_img=canvas.anatomy,
        threshold=clear / full,
        vmax=1.0,
        cmap=_COLOURS,
        symmetric_cmap=True,
        black_bg=False,
        resampling_interpolation="nearest",
    )
    words = "".join(
        f'<p style="font:{size}px sans-serif;margin:6px;color:{colour}">{html.escape(text)}</p>'
        for text, size, colour in (
            (MARK if canvas.simulated else "", 14, ALARM),
            (title, 16, "#1c2733"),
            (f"Colours end at {full:.2g} (units of the score a voxel).", 13, "#5b6b7b"),
        )
        if text
    )
    page = view.get_standalone()
    if "<body>" not in page:
        raise RuntimeError("nilearn's view has no <body> to write the title into")
    return page.replace("<body>", f"<body>{words}", 1)


def cascade_figure(
    curves: Mapping[str, Sequence[tuple[str, Similarity]]], stage: str, simulated: bool
) -> Picture:
    """Rank correlation of maps with the trained network's while layers are randomised."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, limit in (
            (panels[0], "signed", SIGNED_LIMIT),
            (panels[1], "absolute", ABSOLUTE_LIMIT),
        ):
            for number, (method, steps) in enumerate(curves.items()):
                layers = ["trained", *(layer for layer, _ in steps)]
                values = [1.0, *(getattr(found, name) for _, found in steps)]
                axes.plot(
                    range(len(layers)),
                    values,
                    label=method,
                    marker=MARKERS[number],
                    linestyle=LINES[number],
                )
                axes.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
            lower = -limit if name == "signed" else None
            for edge in (limit, lower):
                if edge is not None:
                    axes.axhline(edge, color="#777777", linewidth=0.8, linestyle=":")
            axes.set_title(f"{name} values")
            axes.set_xlabel("randomised from the top down to")
        panels[0].set_ylabel("rank correlation with the trained network")
        panels[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    caption = f"Cascading randomisation, {of_stage(stage)}. "
    caption += "Dotted: what a map may keep at the end to pass."
    return Picture(f"cascade-{stage}", caption, drawn(draw, 9.6, 3.8, simulated))


def regions_figure(
    summary: pd.DataFrame, classes: tuple[str, str], title: str, key: str, simulated: bool
) -> Picture:
    """Density and signed attribution of regions, with intervals, a colour a class.

    Args:
      summary: Rows of one stage and method from `statistics.region_summary`.
      classes: Negative and positive diagnosis.
      title: Above.
      key: File name without extension.
      simulated: Whether the scans are.
    """
    shown = summary.sort_values(f"density_{classes[1]}").tail(30)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, measure, null in ((panels[0], "density", 1.0), (panels[1], "signed", 0.0)):
            for number, name in enumerate(classes):
                centre = shown[f"{measure}_{name}"].to_numpy(float)
                low, high = (shown[f"{measure}_{name}_{end}"] for end in ("low", "high"))
                reach = np.nan_to_num(np.stack([centre - low, high - centre]))
                axes.errorbar(
                    centre,
                    np.arange(len(shown)) + 0.16 * (2 * number - 1),
                    xerr=np.maximum(reach, 0),
                    fmt=MARKERS[number],
                    label=name,
                )
            axes.axvline(null, color="#777777", linewidth=0.8, linestyle=":")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        panels[0].set_yticks(range(len(shown)), list(shown["region"]))
        panels[0].set_xlabel("density of absolute attribution (1: chance)")
        panels[1].set_xlabel("signed attribution, summed over the region")
        panels[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    caption = "Regions: mean over subjects and its 95% bootstrap interval."
    return Picture(key, caption, drawn(draw, 9.6, 0.34 * len(shown) + 1.4, simulated, title))
