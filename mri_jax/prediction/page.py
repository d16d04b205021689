"""One page a scan: what the networks say, how much it is worth, and what the scan looks like."""

import io
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from PIL import Image as Pillow

from mri_jax.prediction.card import DISCLAIMER, with_limits
from mri_jax.prediction.model import FAR_PERCENT, MEANING, PERCENTS, Model, ScoreGroup
from mri_jax.prediction.opinion import Opinion, Prediction
from mri_jax.showing import pages
from mri_jax.showing.figures import drawn, image
from mri_jax.showing.numbers import DASH
from mri_jax.showing.simulated import TRAINING_BANNER
from mri_jax.showing.table import Cell, Table, from_rows, text
from mri_jax.volumes import quality
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.qc_page import row_of_slices
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.templates import Template, load_template

# Percentiles of a group that the figure draws: line, box, tick.
_DRAWN = (5.0, 25.0, 50.0, 75.0, 95.0)
_COLOURS = ("#0072B2", "#D55E00")


def page(model: Model, prediction: Prediction) -> str:
    """The page of one scan: one HTML file that needs no network.

    Args:
      model: Whose references stand beside the scan.
      prediction: Of the scan; its picture must be there.
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
        places=places_table(first),
        networks=networks_table(model, prediction),
        rates=rates_table(first),
        figures=figures_table(model, prediction),
        picture=_slices(model, prediction),
        scores=image(score_figure(model, first), "png"),
        far_percent=f"{FAR_PERCENT:g}",
        kinds=MEANING,
        settings=model.settings.to_json() if model.settings else {},
    )


def warnings(model: Model, prediction: Prediction) -> list[str]:
    """What a reader must know before the number, a sentence each."""
    lines = []
    if prediction.known:
        counts = "; ".join(
            f"{o.trained_on} of {len(o.probabilities)} {o.ensemble.stage} networks"
            for o in prediction.opinions
            if o.trained_on
        )
        lines.append(
            f"Networks were trained on this very scan ({counts}): they remember its label, and "
            "the probability is no prediction."
        )
    for kind, meaning in MEANING.items():
        far = [
            f"{o.ensemble.stage} {o.distances[kind]:.2f}, "
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
            "Figures of quality are outliers beside the training scans or beyond what any head "
            f"should have: {', '.join(prediction.flags)}."
        )
    if prediction.scan.figures and not model.quality:
        lines.append("The training scans have no figures of quality; only fixed limits were used.")
    if model.never_raw and prediction.scan.preprocessed:
        lines.append(
            "The networks never saw a preprocessed scan: their simulated volumes were drawn on the "
            "grid. What preprocessing leaves in a raw scan is new to them."
        )
    return lines + list(model.notes)


def places(opinion: Opinion) -> list[tuple[ScoreGroup, str]]:
    """For each group, which part of it scores below this scan."""
    found = []
    for group in opinion.ensemble.groups:
        share = group.scores.share_below(opinion.score)
        low, high = group.scores.percentiles[0], group.scores.percentiles[-1]
        text = f"{share:.0f}%"
        if opinion.score < low:
            text = "fewer than 2.5%"
        elif opinion.score > high:
            text = "more than 97.5%"
        found.append((group, text))
    return found


def places_table(opinion: Opinion) -> Table:
    """Returns which part of every group scores below this scan."""
    rows = [
        (f"{group.cohort} {group.diagnosis}{', held out' * group.held_out}", group.scores.n, below)
        for group, below in places(opinion)
    ]
    return from_rows("groups", "Groups", ("Group", "n", "Score below this scan"), rows)


def networks_table(model: Model, prediction: Prediction) -> Table:
    """Returns what every network of every stage says, a row a stage."""
    first = prediction.opinions[0]
    header = ("Stage", *(f"Fold {network.fold}" for network in first.ensemble.networks))
    header += ("Ensemble", "Calibrated", f"Side of “{first.point.name}”")
    header += tuple(f"Distance, {kind} (limit)" for kind in MEANING)
    rows = []
    for opinion in prediction.opinions:
        calibrated = opinion.calibrated
        cells = [text(opinion.ensemble.stage)]
        cells += [_probability(value) for value in (*opinion.probabilities, opinion.probability)]
        cells.append(text(DASH) if calibrated is None else _probability(calibrated, bar=False))
        cells.append(text(model.positive if opinion.positive else model.negative))
        for kind in MEANING:
            distance, far = opinion.distances[kind], kind in opinion.far
            told = f"{distance:.2f} ({opinion.ensemble.distance_limits[kind]:.2f})"
            cells.append(Cell(told + " far" * far, distance, alarm=far))
        rows.append(tuple(cells))
    return Table("networks", "Every network", header, tuple(rows))


def _probability(value: float, bar: bool = True) -> Cell:
    return Cell(f"{100 * value:.1f}%", value, bar=100 * value if bar else None)


def rates_table(opinion: Opinion) -> Table:
    """Returns sensitivity and specificity at the operating point, a row a test cohort."""
    rows = [
        (
            rates.cohort,
            f"{with_limits(rates.sensitivity.share)} of {rates.sensitivity.n}",
            f"{with_limits(rates.specificity.share)} of {rates.specificity.n}",
        )
        for rates in opinion.point.rates
    ]
    header = ("Tested on", "Sensitivity, %", "Specificity, %")
    return from_rows("rates", "How often that operating point is right", header, rows)


def figures_table(model: Model, prediction: Prediction) -> Table:
    """Returns the figures of quality that are known of the scan; outliers are marked."""
    flagged = {flag.rsplit(" ", 1)[0] for flag in prediction.flags}
    rows = []
    for name, (meaning, side) in quality.FIGURES.items():
        value = prediction.scan.figures.get(name)
        if value is None or value != value:
            continue
        known = model.quality.get(name)
        low, high = quality.LIMITS.get(name, (-np.inf, np.inf))
        if known is not None:
            low, high = known.low, known.high
        low, high = (-np.inf if side == "high" else low), (np.inf if side == "low" else high)
        outlier = name in flagged
        told = (
            name.replace("_", " "),
            f"{value:.4g}{' (outlier)' * outlier}",
            f"{known.median:.4g} ({known.n})" if known is not None else DASH,
            _between(low, high),
            meaning,
        )
        rows.append(tuple(Cell(part, part, alarm=outlier) for part in told))
    header = ("Figure", "This scan", "Training median (scans)", "Not an outlier", "Meaning")
    return Table("quality", "Quality", header, tuple(rows))


def _between(low: float, high: float) -> str:
    if np.isinf(low):
        return "any" if np.isinf(high) else f"at most {_short(high)}"
    return f"at least {_short(low)}" if np.isinf(high) else f"{_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def score_figure(model: Model, opinion: Opinion) -> Figure:
    """Where the scan's score lies among the classes of every cohort."""
    groups = opinion.ensemble.groups

    def draw(figure: Figure) -> None:
        # Wider than usual: the labels of groups are long, and a little wider in the file.
        figure.set_layout_engine("constrained", w_pad=0.15)
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
        # Beside the line where the word SIMULATED stands above the right half.
        side = "right" if opinion.score > sum(axes.get_xlim()) / 2 else "center"
        axes.annotate(
            "this scan", (opinion.score, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha=side, fontsize=8, weight="bold",
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


def _slices(model: Model, prediction: Prediction) -> bytes:
    picture = prediction.scan.picture
    assert picture is not None
    template = model.settings.load_template() if model.settings else load_template()
    row = row_of_slices(picture, model.grid, _outline(model.grid, template))
    buffer = io.BytesIO()
    Pillow.fromarray(row).save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()


@lru_cache(maxsize=2)
def _outline(grid: Grid, template: Template) -> np.ndarray:
    """(X, Y, Z) bool: the template's brain on the grid."""
    return pull(Image(template.mask, template.affine), grid.affine, grid.shape) > 0.5
