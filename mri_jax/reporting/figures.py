"""Figures of scores: the paper's Figs. 2, 3 and 5 with intervals, ROC, depth, width, layers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax import seeding
from mri_jax.evaluation.cells import MethodScores
from mri_jax.evaluation.families import SOURCE
from mri_jax.evaluation.metrics import METRICS
from mri_jax.evaluation.operating import ARGMAX, INNER, REFITTED
from mri_jax.evaluation.scores import Scores, estimate
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs.labels import of_run, of_stage, titled
from mri_jax.showing.figures import LINES, MARKERS, Picture, drawn, wrapped

PLAIN = "0.35"
"""Colour of the baselines."""
CURVES = 8
"""At most so many ROC curves stand in one figure."""
SHOWN_AS = {
    "finetune": "Figs. 2 and 3", "task": "Fig. 5", "depth": "Table 1", "width": "Table 2",
    "source": "tables",
}  # fmt: skip
"""Where the paper shows the like of a family of tables, by the first word of its key."""
INTERVALS = "Thick: 95% interval of these networks on new subjects (A); thin: retrained too (B)."


def _in_paper(section: FamilyAnalysis) -> str:
    """Returns where the paper shows the like of a section."""
    shown = SHOWN_AS.get(section.family.key.split("-")[0])
    return f"the paper's {shown}" if shown else "not in the paper"


def score_figures(analysis: Analysis) -> list[Picture]:
    """Returns every figure that is made of scores alone."""
    made: list[Picture] = []
    for section in analysis.sections:
        if section.family.apart:
            continue  # a forest plot shows them
        key = section.family.key
        cohorts = [cohort for cohort in section.cohorts if section.tested(cohort)]
        made += [_scores(section, cohort, analysis.simulated) for cohort in cohorts]
        if key.startswith("depth"):
            made.append(_curve(section, "depth", analysis.simulated))
        if key.startswith("width"):
            made.append(_curve(section, "width", analysis.simulated))
        if key.startswith("finetune") and len(section.family.networks) > 3:
            made.append(_layers(section, analysis))
        for cohort in cohorts:
            if any(min(e.scores.counts) > 0 for e in section.tested(cohort) if e.scores):
                made += _roc(section, cohort, analysis)
    return made


def _scores(section: FamilyAnalysis, cohort: str, simulated: bool) -> Picture:
    """Returns a panel a score, a row a method: legible with two methods and with twenty."""
    entries = section.tested(cohort)
    rows = section.summary[
        section.summary["cohort"].eq(cohort) & section.summary["split"].eq("test")
    ].set_index(["method", "metric"])
    shown = {
        (e.method.name, metric): 100 * estimate(metric, e.scores).value
        for e in entries
        if e.scores is not None
        for metric in METRICS
    }
    limits = 100 * rows[["a_low", "b_low"]].to_numpy(float)
    lowest = np.nanmin(np.concatenate([[50.0], limits.ravel(), *shown.values()]))
    least = 10 * np.floor(lowest / 10) - 2

    def drawing(down: bool) -> Callable[[Figure], None]:
        def draw(figure: Figure) -> None:
            across = (len(METRICS), 1) if down else (1, len(METRICS))
            panels = figure.subplots(*across, sharex=down, sharey=True)
            for axes, metric in zip(panels, METRICS, strict=True):
                for place, entry in enumerate(entries):
                    row = rows.loc[(entry.method.name, metric)]
                    if pd.notna(row["mean"]):
                        _score_row(axes, place, entry, row, shown[(entry.method.name, metric)])
                axes.axvline(50, color="0.5", linewidth=0.7, linestyle=":")
                axes.set_title(metric.upper())
                axes.set_xlim(least, 102)
                if axes is panels[-1] or not down:
                    axes.set_xlabel("percent")
            named = [wrapped(titled(section.label(e.method.name)), 28) for e in entries]
            panels[0].set_yticks(range(len(entries)), named, linespacing=1.0)
            panels[0].set_ylim(len(entries) - 0.4, -0.6)
            for axes in panels:
                axes.tick_params(axis="y", labelsize=8)

        return draw

    caption = (
        f"{section.title}, tested on {cohort} ({section.subjects(cohort)}); {_in_paper(section)}. "
        "Marker: mean over networks; dots: each network; open squares: baselines. "
        f"{INTERVALS} Dotted: 50%."
    )
    name = f"{section.family.key}-scores-{cohort}"
    lines = sum(1 + wrapped(section.label(e.method.name), 28).count("\n") for e in entries)
    height = 0.14 * max(lines, 3) + 0.16 * max(len(entries), 3)
    title = f"Tested on {cohort} ({section.subjects(cohort)})"
    wide = drawn(drawing(False), 9.4, 1.15 + height, simulated, title)
    narrow = drawn(drawing(True), 4.2, 0.6 + len(METRICS) * (0.35 + height), simulated, title)
    return Picture(name, caption, wide, narrow)


def _score_row(
    axes: Axes, place: int, entry: MethodScores, row: pd.Series, each: np.ndarray
) -> None:
    """Draws the score of a method, of each of its networks, and both intervals."""
    plain = entry.method.variant.is_baseline
    colour = PLAIN if plain else f"C{place % 8}"
    spread = place + np.linspace(-0.22, 0.22, len(each)) if len(each) > 1 else [place]
    axes.plot(each, spread, ".", color=colour, markersize=4, alpha=0.7, mec="none")
    for name, thickness in (("b", 0.8), ("a", 2.6)):
        limits = (100 * row[f"{name}_low"], 100 * row[f"{name}_high"])
        axes.hlines(place, *limits, color=colour, linewidth=thickness)
    marker, fill = ("s", "white") if plain else (MARKERS[place % 8], colour)
    axes.plot(100 * row["mean"], place, marker, mfc=fill, mec=colour, markersize=4.5)


def _roc(section: FamilyAnalysis, cohort: str, analysis: Analysis) -> Iterator[Picture]:
    """Yields the curves of the networks, and those of the baselines."""
    entries = [e for e in section.tested(cohort) if e.scores and min(e.scores.counts) > 0]
    for name, plain in (("networks", False), ("baselines", True)):
        found = [e for e in entries if e.method.variant.is_baseline == plain]
        side = found[:CURVES]
        if not side:
            continue

        def draw(figure: Figure, side: Sequence[MethodScores] = side) -> None:
            axes = figure.add_subplot()
            _roc_panel(axes, section, cohort, side, analysis.seed)
            axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
            axes.set_aspect("equal")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))

        caption = (
            f"ROC curves of the {name} on {cohort} ({section.subjects(cohort)}): mean sensitivity "
            "over the networks at each specificity, and their mean AUC in percent. Filled marker: "
            "argmax; open marker: refitted threshold; both are means over the networks and may lie "
            "off the mean curve. Shaded: pointwise 95% band over new subjects "
            "(class-stratified bootstrap) of the first curve, and of others that leave it."
        )
        if len(found) > CURVES:
            caption += f" The first {CURVES} of {len(found)}; the others stand in the tables."
        lines = sum(1 + _curve_label(section, e).count("\n") for e in side)
        figure = drawn(
            draw, 4.4, 4.3 + 0.15 * lines, analysis.simulated, f"ROC of the {name}, {cohort}"
        )
        end = "-baselines" if plain else ""
        yield Picture(f"{section.family.key}-roc{end}-{cohort}", caption, figure)


def _curve_label(section: FamilyAnalysis, entry: MethodScores) -> str:
    assert entry.scores is not None
    area = float(estimate("auc", entry.scores).value.mean())
    return wrapped(f"{titled(section.label(entry.method.name))} ({100 * area:.1f})", 44)


def _roc_panel(
    axes: Axes,
    section: FamilyAnalysis,
    cohort: str,
    entries: Sequence[MethodScores],
    seed: int,
) -> None:
    """Draws some methods' curves and operating points, and the bands that can be told apart."""
    grid = np.linspace(0, 1, 201)
    bands: list[tuple[np.ndarray, np.ndarray]] = []
    for place, entry in enumerate(entries):
        scores, method = entry.scores, entry.method
        assert scores is not None
        (mean,) = _mean_rocs(scores, grid, np.ones((1, len(scores.label))))
        # Beyond eight methods the colours come again, with other dashes.
        plain = method.variant.is_baseline
        colour = f"{0.1 + 0.5 * place / len(entries):.2f}" if plain else f"C{place % 8}"
        line, marker = LINES[(place + place // 8) % len(LINES)], MARKERS[place % 8]
        axes.plot(grid, mean, color=colour, linestyle=line, linewidth=1.2)
        label = _curve_label(section, entry)
        axes.plot([], [], color=colour, linestyle=line, marker=marker, linewidth=1.2, label=label)
        for point, fill in ((ARGMAX, colour), (REFITTED, "white"), (INNER, "white")):
            sensitivity, specificity = _at(section.points, cohort, method.name, point)
            axes.plot(
                1 - specificity, sensitivity, marker, mfc=fill, mec=colour,
                markersize=5.5, zorder=3,
            )  # fmt: skip
        if not bands or _apart(mean, bands):
            bands.append(_roc_band(scores, grid, seed))
            axes.fill_between(grid, *bands[-1], color=colour, alpha=0.13, linewidth=0)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")


def _apart(mean: np.ndarray, bands: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Returns whether a curve leaves every band for at least a tenth of the specificities."""
    return all(np.mean((mean < low) | (mean > high)) >= 0.1 for low, high in bands)


def _at(points: pd.DataFrame, cohort: str, method: str, point: str) -> tuple[float, float]:
    """Returns mean sensitivity and specificity of a method at a threshold; NaN where unknown."""
    rows = points[
        points["cohort"].eq(cohort) & points["method"].eq(method) & points["point"].eq(point)
    ].set_index("metric")["mean"]
    return float(rows.get("sen", np.nan)), float(rows.get("spe", np.nan))


def _mean_rocs(scores: Scores, grid: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (D, G) mean sensitivity over the networks at false-positive rates ``grid``.

    ``weights`` are (D, subjects): how often a draw holds each.
    """
    curves = np.empty((len(scores.score), len(weights), len(grid)))
    for network, (score, tested) in enumerate(zip(scores.score, scores.tested, strict=True)):
        order = np.argsort(-score[tested], kind="stable")
        label, ranked = scores.label[tested][order], score[tested][order]
        last = np.append(ranked[1:] != ranked[:-1], True)  # ties enter the curve together
        ordered = weights[:, tested][:, order]
        rates = []
        for value in (0, 1):
            counts = np.cumsum(ordered * (label == value), axis=1)[:, last]
            counts = np.pad(counts, ((0, 0), (1, 0)))
            rates.append(counts / np.maximum(counts[:, -1:], 1e-12))
        for draw, (right, up) in enumerate(zip(*rates, strict=True)):
            curves[network, draw] = np.interp(grid, right, up)
    return np.mean(curves, axis=0)


def _roc_band(scores: Scores, grid: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = seeding.generator(seed, "roc")
    draws = 400 if len(scores.label) < 3000 else 100
    weights = np.zeros((draws, len(scores.label)))
    for weight in weights:
        for value in (0, 1):
            members = np.flatnonzero(scores.label == value)
            picked = random.integers(0, len(members), len(members))
            weight[members] = np.bincount(picked, minlength=len(members))
    low, high = np.quantile(_mean_rocs(scores, grid, weights), [0.025, 0.975], axis=0)
    return low, high


def _curve(section: FamilyAnalysis, what: str, simulated: bool) -> Picture:
    """Returns scores against depth or width, a panel a metric, a line a cohort."""
    frame = section.summary[
        section.summary["split"].eq("test") & ~section.summary["run"].isin(section.family.baselines)
    ].copy()
    at = {method.run: getattr(method.variant, what) for method in section.family.networks}
    frame["x"] = frame["run"].map(at).astype(float)

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
                    linestyle=LINES[place % 8], label=f"{cohort}\n({section.subjects(cohort)})",
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

    caption = f"{section.title} ({_in_paper(section)}): mean over networks. {INTERVALS}"
    figure = drawn(draw, 9.4, 3.2, simulated, section.title)
    return Picture(f"{section.family.key}-curve", caption, figure)


def _layers(section: FamilyAnalysis, analysis: Analysis) -> Picture:
    """Returns score against which layers were tuned, with the number of trained parameters."""
    counts = _parameters(analysis.plan)
    frame = section.summary[
        section.summary["split"].eq("test")
        & section.summary["metric"].eq("auc")
        & ~section.summary["run"].isin(section.family.baselines)
    ]
    methods = list(section.family.networks)
    labels = []
    for method in methods:
        shown = "none (source)" if method.stage == SOURCE else wrapped(of_stage(method.stage), 14)
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
            label = f"{cohort}\n({section.subjects(cohort)})"
            axes.plot(x, 100 * rows["mean"], MARKERS[place % 8], color=colour, label=label)
            for name, thickness in (("b", 0.8), ("a", 2.2)):
                axes.vlines(
                    x, 100 * rows[f"{name}_low"], 100 * rows[f"{name}_high"], color=colour,
                    linewidth=thickness, alpha=0.7,
                )  # fmt: skip
        axes.set_xticks(range(len(methods)), labels)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.set_ylabel("AUC, percent")
        axes.set_xlabel("layers that were tuned")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="tested on")

    caption = (
        "AUC against the layers that were tuned, with the number of parameters that training "
        f"moved; exploratory: not planned for inference. {INTERVALS}"
    )
    width = max(7.0, 0.95 * len(methods) + 2)
    title = f"{of_run(methods[0])}: which layers were tuned (exploratory)"
    figure = drawn(draw, width, 3.4, analysis.simulated, title)
    return Picture(f"{section.family.key}-layers", caption, figure)


def _parameters(plan: pd.DataFrame) -> dict[tuple[str, str], float]:
    if plan.empty or "trainable_parameters" not in plan.columns:
        return {}
    known = plan.dropna(subset=["trainable_parameters"])
    return known.groupby(["run", "stage"])["trainable_parameters"].first().to_dict()


def _short(count: float | None) -> str:
    if count is None:
        return ""
    return f"{count / 1000:.1f}k" if count >= 1000 else f"{count:.0f}"


def cohorts_of(
    sections: Sequence[FamilyAnalysis],
) -> list[tuple[FamilyAnalysis, str, list[MethodScores]]]:
    """Returns every (section, target cohort) that has scores, with its entries.

    Not those of networks that are tested apart, whose figures would be one a site.
    """
    return [
        (section, cohort, section.tested(cohort))
        for section in sections
        for cohort in section.cohorts * (not section.family.apart)
        if section.tested(cohort)
    ]
