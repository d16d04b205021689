"""One page a scan: what the networks say, how much it is worth, and what the scan looks like."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image as Pillow

from mri_jax import __version__
from mri_jax.prediction.card import DISCLAIMER, percent
from mri_jax.prediction.model import FAR_PERCENT, MEANING, PERCENTS, Model, ScoreGroup
from mri_jax.prediction.opinion import Opinion, Prediction
from mri_jax.reporting.style import drawn, image
from mri_jax.volumes import quality
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.qc_page import row_of_slices
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.templates import Template, load_template

# Percentiles of a group that the figure draws: line, box, tick.
_DRAWN = (5.0, 25.0, 50.0, 75.0, 95.0)
_COLOURS = ("#0072B2", "#D55E00")


@dataclass(frozen=True)
class FigureRow:
    """A figure of quality as the page shows it."""

    name: str
    meaning: str
    value: str
    typical: str
    usual: str
    flagged: bool


def page(model: Model, prediction: Prediction) -> str:
    """The page of one scan: one HTML file that needs no network.

    Args:
      model: Whose references stand beside the scan.
      prediction: Of the scan; its picture must be there.
    """
    assets = resources.files("mri_jax.prediction") / "assets"
    style = (resources.files("mri_jax.reporting") / "assets" / "report.css").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    template = environment.from_string((assets / "scan.html.j2").read_text("utf-8"))
    first = prediction.opinions[0]
    return template.render(
        model=model,
        scan=prediction.scan,
        first=first,
        opinions=prediction.opinions,
        warnings=warnings(model, prediction),
        disclaimer=DISCLAIMER,
        places=places(first),
        percent=percent,
        rates=first.point.rates,
        figures=figure_rows(model, prediction),
        picture=_slices(model, prediction),
        scores=base64.b64encode(image(score_figure(model, first), "png")).decode(),
        far_percent=f"{FAR_PERCENT:g}",
        kinds=MEANING,
        settings=model.settings.to_json() if model.settings else {},
        version=__version__,
        css=Markup(style + (assets / "scan.css").read_text("utf-8")),
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


def figure_rows(model: Model, prediction: Prediction) -> list[FigureRow]:
    """The figures of quality that are known of the scan."""
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
        rows.append(
            FigureRow(
                name=name.replace("_", " "),
                meaning=meaning,
                value=f"{value:.4g}",
                typical=f"{known.median:.4g} ({known.n})" if known is not None else "–",
                usual=_between(low, high),
                flagged=name in flagged,
            )
        )
    return rows


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


def _slices(model: Model, prediction: Prediction) -> str:
    picture = prediction.scan.picture
    assert picture is not None
    template = model.settings.load_template() if model.settings else load_template()
    row = row_of_slices(picture, model.grid, _outline(model.grid, template))
    buffer = io.BytesIO()
    Pillow.fromarray(row).save(buffer, "WEBP", quality=80, method=4)
    return base64.b64encode(buffer.getvalue()).decode()


@lru_cache(maxsize=2)
def _outline(grid: Grid, template: Template) -> np.ndarray:
    """(X, Y, Z) bool: the template's brain on the grid."""
    return pull(Image(template.mask, template.affine), grid.affine, grid.shape) > 0.5
