"""The paper's Fig. 4: filters of the first layer before and after tuning, and its feature maps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import results
from mri_jax.errors import UserError
from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.style import Picture, drawn

SHOWN = 8
PLANES = ("sagittal", "coronal", "axial")


def layer_figures(analysis: Analysis, share: bool) -> list[Picture]:
    """Filters (all runs), and feature maps unless they show a real scan and ``share`` is set.

    The arrays are those of `mri_jax.results.FILTERS` and `FEATURE_MAPS`; a run without them has
    no such figure.
    """
    made: list[Picture] = []
    filters = _by_network(analysis.arrays(results.FILTERS))
    for run in dict.fromkeys(run for run, _ in filters):
        stages = {stage: array for (name, stage), array in filters.items() if name == run}
        made.append(_filters(run, stages, analysis.simulated))
    if share and not analysis.simulated:
        return made
    arrays = analysis.arrays(results.FEATURE_MAPS)
    scan = str(arrays.pop("scan", "")) if analysis.simulated and not share else ""
    maps = _by_network(arrays)
    for run in dict.fromkeys(run for run, _ in maps):
        stages = {stage: array for (name, stage), array in maps.items() if name == run}
        made.append(_maps(run, stages, scan, analysis.simulated))
    return made


def _by_network(arrays: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """``run/stage/fold0/conv1`` to (run, stage), the first fold of each, source first."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for key in sorted(arrays, key=lambda k: ("/source/" not in k, k.split("/"))):
        parts = key.split("/")
        if len(parts) == 4 and parts[3] == "conv1":
            found.setdefault((parts[0], parts[1]), arrays[key])
    return found


def _filters(run: str, stages: dict[str, np.ndarray], simulated: bool) -> Picture:
    shown = dict(list(stages.items())[:4])
    for stage, kernel in shown.items():
        if kernel.ndim != 5 or kernel.shape[:3] != (3, 3, 3):
            raise UserError(f"{results.FILTERS}: {run}/{stage} has shape {kernel.shape}")
    count = min(SHOWN, next(iter(shown.values())).shape[-1])
    when = "before and after fine-tuning" if len(stages) > 1 else "as trained on the source"
    if len(shown) < len(stages):
        when += f" (the first {len(shown)} of {len(stages)} stages)"
    limit = max(float(np.abs(kernel[..., 0, :count]).max()) for kernel in shown.values()) or 1.0

    def draw(figure: Figure) -> None:
        rows = [(stage, plane) for stage in shown for plane in range(3)]
        panels = figure.subplots(len(rows), count, squeeze=False)
        for row, (line, (stage, plane)) in enumerate(zip(panels, rows, strict=True)):
            for index, axes in enumerate(line):
                middle = np.take(shown[stage][..., 0, index], 1, axis=plane)
                image = axes.imshow(
                    middle.T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit
                )
                _bare(axes)
                if row == 0:
                    axes.set_title(f"filter {index + 1}", fontsize=7.5)
            line[0].set_ylabel(
                f"{stage}\n{PLANES[plane]}", rotation=0, ha="right", va="center", fontsize=7.5
            )
        figure.colorbar(image, ax=panels, shrink=0.5, label="weight")

    caption = (
        f"First-layer filters of {run} (fold 0): the three planes through the centre of each, "
        f"{when}. One colour scale for all."
    )
    height = 0.72 * 3 * len(shown) + 0.6
    figure = drawn(draw, 8.4, height, simulated, f"{run}: filters of conv1")
    return Picture(f"filters-{run}", caption, figure)


def _maps(run: str, stages: dict[str, np.ndarray], scan: str, simulated: bool) -> Picture:
    shown = dict(list(stages.items())[:4])
    count = min(SHOWN, next(iter(shown.values())).shape[-1])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shown), count, squeeze=False)
        for row, (line, (stage, array)) in enumerate(zip(panels, shown.items(), strict=True)):
            middle = array.shape[2] // 2
            limit = float(np.quantile(array[:, :, middle, :count], 0.995)) or 1.0
            for index, axes in enumerate(line):
                plane = array[:, :, middle, index]
                axes.imshow(plane.T, origin="lower", cmap="gray", vmin=0.0, vmax=limit)
                _bare(axes)
                if row == 0:
                    axes.set_title(f"filter {index + 1}", fontsize=7.5)
            line[0].set_ylabel(stage, rotation=0, ha="right", va="center", fontsize=7.5)

    caption = f"First-layer feature maps of {run} (fold 0), middle axial plane of one scan"
    caption += f" ({scan})." if scan else "."
    height = 1.35 * len(shown) + 0.6
    figure = drawn(draw, 9.6, height, simulated, f"{run}: feature maps of conv1")
    return Picture(f"feature-maps-{run}", caption, figure)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
