"""The paper's Fig. 4: filters of the first layer before and after tuning, and its feature maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mri_jax.errors import UserError
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.reporting.analysis import Analysis
from mri_jax.runs import results
from mri_jax.runs.labels import of_run, of_stage
from mri_jax.showing.figures import Picture, drawn, wrapped

SHOWN = 8
PLANES = ("sagittal", "coronal", "axial")


def layer_figures(analysis: Analysis, share: bool) -> list[Picture]:
    """Filters (all runs), and feature maps unless they show a real scan and ``share`` is set.

    The arrays are those of `mri_jax.runs.results.FILTERS` and `FEATURE_MAPS`; a run without them
    has no such figure. Of networks of which every site was left out once those of the first site
    are shown.
    """
    made: list[Picture] = []
    filters = _by_network(analysis.arrays(results.FILTERS))
    for run in _first_of_each(analysis, {run for run, _ in filters}):
        stages = {stage: array for (name, stage), array in filters.items() if name == run}
        made.append(_filters(analysis, run, stages))
    if share and not analysis.simulated:
        return made
    arrays = analysis.arrays(results.FEATURE_MAPS)
    scan = str(arrays.pop("scan", "")) if analysis.simulated and not share else ""
    maps = _by_network(arrays)
    for run in _first_of_each(analysis, {run for run, _ in maps}):
        stages = {stage: array for (name, stage), array in maps.items() if name == run}
        made.append(_maps(analysis, run, stages, scan))
    return made


def _first_of_each(analysis: Analysis, runs: set[str]) -> list[str]:
    """Returns the runs in order, of those that differ by the sites left out the first."""
    found: dict[Method, str] = {}
    for run in analysis.ordered(runs):
        found.setdefault(analysis.method(run, SOURCE).wherever, run)
    return list(found.values())


def _by_network(arrays: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Returns the arrays ``run/stage/fold0/conv1`` by (run, stage), of the first fold."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for key in sorted(arrays, key=lambda k: ("/source/" not in k, k.rsplit("/", 3))):
        parts = key.rsplit("/", 3)
        if len(parts) == 4 and parts[3] == "conv1":
            found.setdefault((parts[0], parts[1]), arrays[key])
    return found


def _filters(analysis: Analysis, run: str, stages: dict[str, np.ndarray]) -> Picture:
    network = of_run(analysis.method(run, SOURCE))
    distinct, unchanged = _distinct(stages)
    shown = dict(list(distinct.items())[:4])
    for stage, kernel in shown.items():
        if kernel.ndim != 5 or kernel.shape[:3] != (3, 3, 3):
            raise UserError(f"{results.FILTERS}: {run}/{stage} has shape {kernel.shape}")
    count = min(SHOWN, next(iter(shown.values())).shape[-1])
    when = "before and after fine-tuning" if len(distinct) > 1 else "as trained on the source"
    if len(shown) < len(distinct):
        when += f" (the first {len(shown)} of {len(distinct)} stages that differ)"
    limit = max(float(np.abs(kernel[..., 0, :count]).max()) for kernel in shown.values()) or 1.0

    rows = [(stage, plane) for stage in shown for plane in range(3)]
    tiles = [
        [np.take(shown[stage][..., 0, index], 1, axis=plane) for index in range(count)]
        for stage, plane in rows
    ]
    names = [f"{wrapped(of_stage(stage), 22)},\n{PLANES[plane]}" for stage, plane in rows]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        image = _mosaic(axes, tiles, names, gap=1)
        image.set(cmap="RdBu_r", clim=(-limit, limit))
        axes.set_aspect("auto")  # a fixed one beside a colour bar would cut the names
        figure.colorbar(image, ax=axes, shrink=0.5, label="weight")

    caption = (
        f"First-layer filters of {network} (fold 0): the three planes through the centre of each, "
        f"{when}. One colour scale for all.{_changes(shown)}{unchanged}"
    )
    figure = drawn(
        draw, 8.4, _height(tiles, 6.0, gap=1), analysis.simulated, f"{network}: filters of conv1"
    )
    return Picture(f"filters-{run}", caption, figure)


def _distinct(stages: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Returns the stages whose array is not that of the source, and a sentence about the others."""
    if "source" not in stages:
        return stages, ""
    source = stages["source"]
    same = [s for s, a in stages.items() if s != "source" and np.array_equal(a, source)]
    kept = {stage: array for stage, array in stages.items() if stage not in same}
    return kept, f" Those with {', '.join(map(of_stage, same))} are the source's." if same else ""


def _changes(stages: dict[str, np.ndarray]) -> str:
    """Returns how far tuning moved any weight, which the colours may be too coarse to show."""
    if "source" not in stages or len(stages) < 2:
        return ""
    moved = [
        f"{of_stage(stage)} {float(np.abs(kernel - stages['source']).max()):.2g}"
        for stage, kernel in stages.items()
        if stage != "source" and kernel.shape == stages["source"].shape
    ]
    return f" Largest change of a weight from the source: {', '.join(moved)}."


def _maps(analysis: Analysis, run: str, stages: dict[str, np.ndarray], scan: str) -> Picture:
    network = of_run(analysis.method(run, SOURCE))
    distinct, unchanged = _distinct(stages)
    shown = dict(list(distinct.items())[:4])
    count = min(SHOWN, next(iter(shown.values())).shape[-1])

    tiles = []
    for array in shown.values():
        plane = array[:, :, array.shape[2] // 2, :count]
        limit = float(np.quantile(plane, 0.995)) or 1.0
        tiles.append([plane[..., index] / limit for index in range(count)])

    def draw(figure: Figure) -> None:
        image = _mosaic(
            figure.add_subplot(), tiles, [wrapped(of_stage(stage), 22) for stage in shown], gap=2
        )
        image.set(cmap="gray", clim=(0.0, 1.0))

    caption = f"First-layer feature maps of {network} (fold 0), middle axial plane of one scan"
    caption += f" ({scan})." if scan else "."
    caption += unchanged
    figure = drawn(
        draw,
        9.6,
        _height(tiles, 8.3, gap=2),
        analysis.simulated,
        f"{network}: feature maps of conv1",
    )
    return Picture(f"feature-maps-{run}", caption, figure)


def _height(tiles: Sequence[Sequence[np.ndarray]], width: float, gap: int) -> float:
    """Inches that a mosaic of that width needs, its column names included."""
    across, up = (size + gap for size in tiles[0][0].shape)
    return width * len(tiles) * up / (len(tiles[0]) * across) + 0.35


def _mosaic(
    axes: Axes, tiles: Sequence[Sequence[np.ndarray]], names: Sequence[str], gap: int
) -> AxesImage:
    """Draw rows of equal (X, Y) tiles, +Y upwards, as one image with white between them.

    One image instead of an axes a tile: the layout of a hundred axes takes many seconds.
    """
    height, width = (size + gap for size in tiles[0][0].shape[::-1])
    canvas = np.full((len(tiles) * height - gap, len(tiles[0]) * width - gap), np.nan)
    for row, line in enumerate(tiles):
        for column, tile in enumerate(line):
            top, left = row * height, column * width
            canvas[top : top + height - gap, left : left + width - gap] = np.flipud(tile.T)
    image = axes.imshow(canvas, interpolation="nearest")
    centres = [(np.arange(n) * step + (step - gap - 1) / 2) for n, step in
               ((len(tiles[0]), width), (len(tiles), height))]  # fmt: skip
    axes.set_xticks(centres[0], [f"filter {k + 1}" for k in range(len(tiles[0]))])
    axes.set_yticks(centres[1], names)
    axes.tick_params(length=0, labelsize=7.5, top=False, labeltop=True, labelbottom=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return image
