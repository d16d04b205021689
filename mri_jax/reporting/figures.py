"""Figures of scores: the paper's Figs. 2, 3 and 5 with intervals, ROC, depth, width, layers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import seeding
from mri_jax.evaluation.cells import Entry
from mri_jax.evaluation.families import SOURCE, depth_of, is_baseline, parse
from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.scores import Scores, estimate
from mri_jax.reporting.analysis import Analysis, Section
from mri_jax.reporting.style import HATCHES, LINES, MARKERS, Picture, drawn

INTERVALS = "Thick: 95% interval of these networks on new subjects (A); thin: retrained too (B)."


def score_figures(analysis: Analysis) -> list[Picture]:
    """Every figure that is made of scores alone."""
    made: list[Picture] = []
    for section in analysis.sections:
        key = section.family.key
        for cohort in section.cohorts:
            if section.tested(cohort):
                made.append(_scores(section, cohort, analysis.simulated))
                if any(min(e.scores.counts) > 0 for e in section.tested(cohort) if e.scores):
                    made.append(_roc(section, cohort, analysis))
        if key.startswith("depth"):
            made.append(_curve(section, "depth", analysis.simulated))
        if key.startswith("width"):
            made.append(_curve(section, "width", analysis.simulated))
        if key.startswith("finetune") and len(section.family.networks) > 3:
            made.append(_layers(section, analysis))
    return made


def _scores(section: Section, cohort: str, simulated: bool) -> Picture:
    frame = section.summary[
        section.summary["cohort"].eq(cohort)
        & section.summary["split"].eq("test")
        & section.summary["mean"].notna()
    ]
    values = {
        (e.method.name, metric): estimate(metric, e.scores).value
        for e in section.tested(cohort)
        if e.scores is not None
        for metric in METRICS
    }
    methods = list(dict.fromkeys(frame["method"]))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        width = 0.8 / max(len(methods), 1)
        for place, method in enumerate(methods):
            rows = frame[frame["method"] == method].set_index("metric").reindex(METRICS)
            x = np.arange(5) + (place - (len(methods) - 1) / 2) * width
            colour, hatch = f"C{place % 8}", HATCHES[place % 8]
            axes.bar(
                x, 100 * rows["mean"], 0.9 * width, label=method, color=colour, hatch=hatch,
                alpha=0.45, edgecolor=colour, linewidth=0.8,
            )  # fmt: skip
            _whiskers(axes, x, rows)
            for position, metric in zip(x, METRICS, strict=True):
                points = 100 * values[(method, metric)]
                spread = np.linspace(-0.2, 0.2, len(points)) * width
                axes.plot(position + spread, points, ".", color=colour, markersize=3, mec="none")
        axes.set_xticks(range(5), [m.upper() for m in METRICS])
        axes.set_ylabel("percent")
        axes.set_ylim(0, 105)
        axes.axhline(50, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_title(f"{section.family.title}: tested on {cohort}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(4, len(methods)))

    caption = (
        f"{section.family.title}, tested on {cohort}. Bars: mean over networks; dots: each "
        f"network. {INTERVALS}"
    )
    name = f"{section.family.key}-scores-{cohort}"
    return Picture(name, caption, drawn(draw, 8.2, 4.2, simulated))


def _whiskers(axes: Axes, x: np.ndarray, rows: pd.DataFrame) -> None:
    for name, thickness in (("b", 0.9), ("a", 2.4)):
        low, high = (100 * rows[f"{name}_{end}"].to_numpy(float) for end in ("low", "high"))
        known = ~np.isnan(low) & ~np.isnan(high)
        axes.vlines(x[known], low[known], high[known], color="0.15", linewidth=thickness)


def _roc(section: Section, cohort: str, analysis: Analysis) -> Picture:
    entries = section.tested(cohort)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        grid = np.linspace(0, 1, 101)
        for place, entry in enumerate(entries):
            scores = entry.scores
            if scores is None or min(scores.counts) == 0:
                continue
            mean = _mean_roc(scores, grid, None)
            low, high = _roc_band(scores, grid, analysis.seed)
            area = float(estimate("auc", scores).value.mean())
            colour, line = f"C{place % 8}", LINES[place % 8]
            label = f"{entry.method.name} ({100 * area:.1f})"
            axes.plot(grid, mean, color=colour, linestyle=line, label=label)
            if not is_baseline(entry.method.run):
                axes.fill_between(grid, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
        axes.set_aspect("equal")
        axes.set_title(f"ROC, tested on {cohort}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="method (mean AUC, %)")

    caption = (
        f"ROC curves on {cohort}: mean sensitivity over the networks at each specificity, with "
        "pointwise 95% bands over new subjects (class-stratified bootstrap)."
    )
    name = f"{section.family.key}-roc-{cohort}"
    return Picture(name, caption, drawn(draw, 7.4, 4.4, analysis.simulated))


def _mean_roc(scores: Scores, grid: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """(G,) mean sensitivity over the networks at false-positive rates ``grid``."""
    curves = []
    for score, tested in zip(scores.score, scores.tested, strict=True):
        order = np.argsort(-score[tested], kind="stable")
        label, ranked = scores.label[tested][order], score[tested][order]
        w = np.ones(len(label)) if weight is None else weight[tested][order]
        last = np.r_[ranked[1:] != ranked[:-1], True]  # ties enter the curve together
        up = np.r_[0.0, np.cumsum(w * (label == 1))[last]]
        right = np.r_[0.0, np.cumsum(w * (label == 0))[last]]
        curves.append(np.interp(grid, right / max(right[-1], 1e-12), up / max(up[-1], 1e-12)))
    return np.mean(curves, axis=0)


def _roc_band(scores: Scores, grid: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = seeding.generator(seed, "roc")
    draws = 400 if len(scores.label) < 3000 else 100
    weight = np.zeros(len(scores.label))
    curves = []
    for _ in range(draws):
        for value in (0, 1):
            members = np.flatnonzero(scores.label == value)
            picked = random.integers(0, len(members), len(members))
            weight[members] = np.bincount(picked, minlength=len(members))
        curves.append(_mean_roc(scores, grid, weight))
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    return low, high


def _curve(section: Section, what: str, simulated: bool) -> Picture:
    """Scores against depth or width, a panel a metric, a line a cohort."""
    frame = section.summary[
        section.summary["split"].eq("test") & ~section.summary["run"].map(is_baseline)
    ].copy()
    frame["x"] = frame["run"].map(_depth if what == "depth" else _width)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, metric in zip(panels, ("auc", "bac", "acc"), strict=True):
            for place, cohort in enumerate(section.cohorts):
                rows = frame[(frame["cohort"] == cohort) & (frame["metric"] == metric)]
                rows = rows.sort_values("x").reset_index(drop=True)
                span = rows["x"].max() - rows["x"].min()
                x = rows["x"].to_numpy(float) + (place - 1) * 0.015 * (span or 1)
                colour = f"C{place % 8}"
                axes.plot(
                    x, 100 * rows["mean"], marker=MARKERS[place % 8], color=colour,
                    linestyle=LINES[place % 8], label=cohort,
                )  # fmt: skip
                for name, thickness in (("b", 0.8), ("a", 2.2)):
                    axes.vlines(
                        x, 100 * rows[f"{name}_low"], 100 * rows[f"{name}_high"], color=colour,
                        linewidth=thickness, alpha=0.7,
                    )  # fmt: skip
            axes.set_title(metric.upper())
            axes.set_xlabel("convolutional layers" if what == "depth" else "width factor w")
            axes.set_xticks(sorted(set(frame["x"])))
            axes.margins(x=0.12)
        panels[0].set_ylabel("percent")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="tested on")

    caption = f"{section.family.title}: mean over networks. {INTERVALS}"
    return Picture(f"{section.family.key}-curve", caption, drawn(draw, 9.0, 3.4, simulated))


def _depth(run: str) -> float:
    return float(depth_of(run) or 0)


def _width(run: str) -> float:
    parsed = parse(run)
    return parsed[1] if parsed else 0.0


def _layers(section: Section, analysis: Analysis) -> Picture:
    """Score against which layers were tuned, with the number of trained parameters."""
    counts = _parameters(analysis.plan)
    frame = section.summary[
        section.summary["split"].eq("test")
        & section.summary["metric"].eq("auc")
        & ~section.summary["run"].map(is_baseline)
    ]
    methods = list(section.family.networks)
    labels = []
    for method in methods:
        shown = "none (source)" if method.stage == SOURCE else method.stage.removeprefix("tuned-")
        count = counts.get((method.run, method.stage))
        trained = count is not None and method.stage != SOURCE
        labels.append(f"{shown}\n{_short(count)} trained" if trained and count else shown)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, cohort in enumerate(section.cohorts):
            rows = frame[frame["cohort"] == cohort].set_index("method")
            rows = rows.reindex([m.name for m in methods])
            x = np.arange(len(methods)) + (place - (len(section.cohorts) - 1) / 2) * 0.14
            colour = f"C{place % 8}"
            axes.plot(x, 100 * rows["mean"], MARKERS[place % 8], color=colour, label=cohort)
            for name, thickness in (("b", 0.8), ("a", 2.2)):
                axes.vlines(
                    x, 100 * rows[f"{name}_low"], 100 * rows[f"{name}_high"], color=colour,
                    linewidth=thickness, alpha=0.7,
                )  # fmt: skip
        axes.set_xticks(range(len(methods)), labels)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.set_ylabel("AUC, percent")
        axes.set_xlabel("layers that were tuned")
        axes.set_title("Which layers were tuned (exploratory)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="tested on")

    caption = f"AUC against the layers that were tuned; exploratory. {INTERVALS}"
    key = f"{section.family.key}-layers"
    return Picture(
        key, caption, drawn(draw, max(7.0, 1.1 * len(methods) + 2), 3.6, analysis.simulated)
    )


def _parameters(plan: pd.DataFrame) -> dict[tuple[str, str], float]:
    if plan.empty or "trainable_parameters" not in plan.columns:
        return {}
    known = plan.dropna(subset=["trainable_parameters"])
    return known.groupby(["run", "stage"])["trainable_parameters"].first().to_dict()


def _short(count: float | None) -> str:
    if count is None:
        return ""
    return f"{count / 1000:.1f}k" if count >= 1000 else f"{count:.0f}"


def cohorts_of(sections: Sequence[Section]) -> list[tuple[Section, str, list[Entry]]]:
    """Every (section, target cohort) that has scores, with its entries."""
    return [
        (section, cohort, section.tested(cohort))
        for section in sections
        for cohort in section.cohorts
        if section.tested(cohort)
    ]
