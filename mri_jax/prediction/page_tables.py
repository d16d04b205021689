"""Tables of a scan's page: where its score lies, every network, its quality."""

import numpy as np

from mri_jax.prediction.card import with_limits
from mri_jax.prediction.model import MEANING, PortableModel, ScoreGroup
from mri_jax.prediction.opinion import Opinion, Prediction
from mri_jax.runs.labels import of_stage, titled
from mri_jax.showing.numbers import DASH
from mri_jax.showing.table import Cell, Table, from_rows, text
from mri_jax.volumes import quality


def places(opinion: Opinion) -> list[tuple[ScoreGroup, str]]:
    """Returns which part of each group scores below this scan."""
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


def networks_table(model: PortableModel, prediction: Prediction) -> Table:
    """Returns what every network of every stage says, a row a stage."""
    first = prediction.opinions[0]
    header = ("Stage", *(f"Fold {network.fold}" for network in first.ensemble.networks))
    header += ("Ensemble", "Calibrated", f"Side of “{first.point.name}”")
    header += tuple(f"Distance, {kind} (limit)" for kind in MEANING)
    rows = []
    for opinion in prediction.opinions:
        calibrated = opinion.calibrated
        cells = [text(titled(of_stage(opinion.ensemble.stage)))]
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


def figures_table(model: PortableModel, prediction: Prediction) -> Table:
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
