"""One page a scan: what the networks say, how much it is worth, and what the scan looks like."""

import io
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image as Pillow

from mri_jax.prediction import page_tables
from mri_jax.prediction.card import DISCLAIMER
from mri_jax.prediction.model import FAR_PERCENT, MEANING, PERCENTS, PortableModel, ScoreGroup
from mri_jax.prediction.opinion import Opinion, Prediction
from mri_jax.runs.labels import of_stage
from mri_jax.showing import pages
from mri_jax.showing.figures import drawn, image
from mri_jax.showing.simulated import TRAINING_BANNER
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.qc_page import row_of_slices
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.templates import Template, load_template

# Percentiles of a group that the figure draws: line, box, tick.
_DRAWN = (5.0, 25.0, 50.0, 75.0, 95.0)
_COLOURS = ("#0072B2", "#D55E00")


def page(model: PortableModel, prediction: Prediction) -> str:
    """Returns the page of one scan: one HTML file that needs no network.

    Args:
      model: Whose references stand beside the scan.
      prediction: Prediction of the scan; its picture must be there.
    """
    first = prediction.opinions[0]
    scan = prediction.scan
    return pages.render(
        "prediction/scan.html.j2",
        title=f"{scan.subject_id} {scan.session_id}",
        banner=TRAINING_BANNER if model.simulated else "",
        interactive=False,
        model=model,
        scan=scan,
        first=first,
        warnings=warnings(model, prediction),
        disclaimer=DISCLAIMER,
        places=page_tables.places_table(first),
        networks=page_tables.networks_table(model, prediction),
        rates=page_tables.rates_table(first),
        figures=page_tables.figures_table(model, prediction),
        picture=_slices(model, prediction),
        scores=image(score_figure(model, first), "png"),
        stage=of_stage(first.ensemble.stage),
        far_percent=f"{FAR_PERCENT:g}",
        kinds=MEANING,
        settings=model.settings.to_json() if model.settings else {},
    )


def warnings(model: PortableModel, prediction: Prediction) -> list[str]:
    """Returns what a reader must know before the number, a sentence each."""
    lines = []
    if prediction.known:
        counts = "; ".join(
            f"{of_stage(o.ensemble.stage)}: {o.trained_on} of {len(o.probabilities)}"
            for o in prediction.opinions
            if o.trained_on
        )
        lines.append(
            f"Networks were trained on this very scan ({counts}): they remember its label, and "
            "the probability is no prediction."
        )
    for kind, meaning in MEANING.items():
        far = [
            f"{of_stage(o.ensemble.stage)}: {o.distances[kind]:.2f}, "
            f"limit {o.ensemble.distance_limits[kind]:.2f}"
            for o in prediction.opinions
            if kind in o.far
        ]
        if far:
            lines.append(
                f"This scan looks unlike the training data: in {meaning}, it lies further away "
                f"than {FAR_PERCENT:g}% of held-out training scans ({'; '.join(far)}). Do not rely "
                "on the probability."
            )
    if prediction.flags:
        lines.append(
            "Figures of quality are outliers among the training scans, or outside the limits of "
            f"any head: {', '.join(prediction.flags)}."
        )
    if prediction.scan.figures and not model.quality:
        lines.append("The training scans have no figures of quality; only fixed limits were used.")
    if model.never_raw and prediction.scan.preprocessed:
        lines.append(
            "The networks never saw a preprocessed scan: their simulated volumes were drawn on the "
            "grid. What preprocessing leaves in a raw scan is new to them."
        )
    return lines + list(model.notes)


def score_figure(model: PortableModel, opinion: Opinion) -> Figure:
    """Returns where the scan's score lies among the classes of every cohort."""
    groups = opinion.ensemble.groups

    def draw(figure: Figure) -> None:
        # Wider than usual: the labels of groups are long, and a little wider in the file.
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(w_pad=0.15)
        axes = figure.subplots()
        percents = np.array(PERCENTS)
        for row, group in enumerate(groups):
            ends = np.interp(_DRAWN, percents, group.scores.percentiles)
            colour = _COLOURS[group.label]
            axes.plot(ends[[0, 4]], [row, row], color=colour, linewidth=1.2)
            axes.barh(
                row, ends[3] - ends[1], left=ends[1], height=0.5, color=colour, alpha=0.35,
                hatch="//" if group.held_out else None, edgecolor=colour,
            )  # fmt: skip
            axes.plot([ends[2]] * 2, [row - 0.25, row + 0.25], color=colour, linewidth=2)
        axes.axvline(opinion.point.threshold, color="0.45", linestyle="--", linewidth=1)
        axes.axvline(opinion.score, color="black", linewidth=2)
        axes.annotate(
            "this scan", (opinion.score, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8, weight="bold",
        )  # fmt: skip
        axes.set_yticks(range(len(groups)), [_label(group) for group in groups])
        axes.invert_yaxis()
        axes.set_xlabel(
            f"score: logit of the probability of {model.positive}   (dashed: operating point)"
        )
        axes.grid(axis="y", visible=False)

    height = 0.9 + 0.28 * len(groups)
    return drawn(draw, 6.4, height, model.simulated)


def _label(group: ScoreGroup) -> str:
    where = ", held out" if group.held_out else ""
    return f"{group.cohort} {group.diagnosis} ({group.scores.n}{where})"


def _slices(model: PortableModel, prediction: Prediction) -> bytes:
    picture = prediction.scan.picture
    assert picture is not None
    template = model.settings.load_template() if model.settings else load_template()
    row = row_of_slices(picture, model.grid, _outline(model.grid, template))
    buffer = io.BytesIO()
    Pillow.fromarray(row).save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()


@lru_cache(maxsize=2)
def _outline(grid: Grid, template: Template) -> np.ndarray:
    """Returns (X, Y, Z) bool: the template's brain on the grid."""
    return pull(Image(template.mask, template.affine), grid.affine, grid.shape) > 0.5
