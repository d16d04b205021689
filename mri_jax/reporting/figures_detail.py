"""Figures behind the scores: decisions, distributions, calibration, training."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import expit

from mri_jax.evaluation.calibration import reliability
from mri_jax.evaluation.cells import MethodScores
from mri_jax.evaluation.families import layer_order
from mri_jax.evaluation.intervals import decisions
from mri_jax.evaluation.scores import Scores
from mri_jax.evaluation.thresholds import temperatures
from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.figures import cohorts_of
from mri_jax.runs.labels import label, titled
from mri_jax.showing.figures import LINES, Picture, drawn, wrapped

CONFUSION = (
    "Decisions at argmax on {who}: share of each true class, and how many subjects that is for one "
    "network (mean over the networks)."
)
DISTRIBUTION = (
    "Distribution of the networks' probabilities of the positive class on {who}, by true class; "
    "the dotted line is argmax."
)
CALIBRATION = (
    "Reliability on {who}: observed share of positives against the predicted probability, as "
    "trained and after temperature scaling. Bars (as trained): Wilson's 95% interval for the mean "
    "number of subjects that a network has in the bin."
)
PANELS = 8
"""At most so many networks of a table stand in the detailed figures."""
ROW = 4
"""Panels a row."""


def detail_figures(analysis: Analysis) -> list[Picture]:
    """Confusion matrices, score distributions and calibration of every table and cohort."""
    made: list[Picture] = []
    for section, cohort, entries in cohorts_of(analysis.sections):
        networks = [e for e in entries if not e.method.variant.is_baseline]
        if not networks:
            continue
        who = f"{cohort} ({section.subjects(cohort)})"
        if len(networks) > PANELS:
            who += f"; the first {PANELS} of {len(networks)} networks"
        networks = networks[:PANELS]
        size = _shape(len(networks))
        for name, draw, caption in (
            ("confusion", _confusion(networks, section.classes), CONFUSION),
            ("distribution", _distribution(networks, section.classes), DISTRIBUTION),
            ("calibration", _calibration(networks, section.classes[1], analysis), CALIBRATION),
        ):
            figure = drawn(draw, *size, analysis.simulated, cohort)
            key = f"{section.family.key}-{name}-{cohort}"
            made.append(Picture(key, caption.format(who=who), figure))
    return made


def _shape(count: int) -> tuple[float, float]:
    """Width and height of a figure of so many panels, in inches."""
    return max(4.0, 2.1 * min(count, ROW) + 1.0), 2.7 * -(-count // ROW)


def _panels(figure: Figure, count: int) -> list[Axes]:
    """Returns one panel a network, `ROW` a row, sharing their axes."""
    columns = min(count, ROW)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, sharex=True, sharey=True)
    every = list(grid.ravel())
    for empty in every[count:]:
        empty.set_visible(False)
    return every[:count]


def _confusion(entries: list[MethodScores], classes: tuple[str, str]) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        panels = _panels(figure, len(entries))
        for axes, entry in zip(panels, entries, strict=True):
            assert entry.scores is not None
            shares, counts = _confusion_of(entry.scores)
            # The positive class first, as in the page's small pictures.
            axes.imshow(shares[::-1, ::-1], vmin=0, vmax=1, cmap="Blues")
            for row in (0, 1):
                for column in (0, 1):
                    share = shares[row, column]
                    shown = "–" if np.isnan(share) else f"{100 * share:.0f}%"
                    axes.text(
                        1 - column, 1 - row, f"{shown}\n{counts[row, column]:.1f}", ha="center",
                        va="center", color="white" if share > 0.68 else "black",
                    )  # fmt: skip
            axes.set_xticks((1, 0), classes)
            axes.set_yticks((1, 0), classes, rotation=90, va="center")
            axes.grid(False)
            axes.set_xlabel("decided")
            axes.set_title(wrapped(titled(label(entry.method)), 26), fontsize=8)
        panels[0].set_ylabel("true class")

    return draw


def _legend_beside(figure: Figure, panel: Axes, title: str = "") -> None:
    """Draws one legend for all panels where it covers none of them."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=7.5, title=title)


def _confusion_of(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Returns (2, 2) shares of each true class (rows), and mean counts."""
    decided = decisions(scores)
    counts = np.zeros((2, 2))
    for row in (0, 1):
        members = scores.tested & (scores.label == row)
        for column in (0, 1):
            counts[row, column] = (members & (decided == bool(column))).sum(axis=1).mean()
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full((2, 2), np.nan), where=total > 0)
    return shares, counts


def _distribution(
    entries: list[MethodScores], classes: tuple[str, str]
) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        panels = _panels(figure, len(entries))
        edges = np.linspace(0, 1, 21)
        for axes, entry in zip(panels, entries, strict=True):
            assert entry.scores is not None
            for value, name in enumerate(classes):
                chosen = entry.scores.tested & (entry.scores.label == value)
                probability = expit(entry.scores.score[chosen])
                if len(probability):
                    axes.hist(
                        probability, edges.tolist(), density=True, label=name, color=f"C{value}",
                        histtype="stepfilled", alpha=0.35, edgecolor=f"C{value}",
                        hatch=("", "//")[value],
                    )  # fmt: skip
            axes.axvline(0.5, color="0.4", linewidth=0.8, linestyle=":")
            axes.set_xlim(0, 1)
            axes.set_xlabel(f"probability of {classes[1]}")
            axes.set_title(wrapped(titled(label(entry.method)), 26), fontsize=8)
        panels[0].set_ylabel("density")
        _legend_beside(figure, panels[0])

    return draw


def _calibration(
    entries: list[MethodScores], positive: str, analysis: Analysis
) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        panels = _panels(figure, len(entries))
        for axes, entry in zip(panels, entries, strict=True):
            scores = entry.scores
            assert scores is not None
            factors = temperatures(analysis.predictions, entry.method, scores)
            choices: list[tuple[str, np.ndarray]] = [("as trained", np.ones(len(scores.score)))]
            if factors is not None:
                choices.append(("temperature-scaled", factors))
            for place, (name, divisor) in enumerate(choices):
                table = _pooled_reliability(scores, divisor)
                colour = f"C{place}"
                axes.plot(
                    table["predicted"], table["observed"], marker="os"[place], color=colour,
                    linestyle=LINES[place], label=name,
                )  # fmt: skip
                if place == 0:  # two sets of bars hide each other
                    axes.vlines(
                        table["predicted"], table["observed_low"], table["observed_high"],
                        color=colour, linewidth=0.9, alpha=0.7,
                    )  # fmt: skip
            axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
            axes.set(
                xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"predicted share of {positive}"
            )
            axes.set_title(wrapped(titled(label(entry.method)), 26), fontsize=8)
        panels[0].set_ylabel(f"observed share of {positive}")
        _legend_beside(figure, panels[0])

    return draw


def _pooled_reliability(scores: Scores, divisor: np.ndarray) -> pd.DataFrame:
    """Reliability over all networks; intervals use one network's worth of subjects."""
    tested = scores.tested
    probability = expit(scores.score / divisor[:, None])[tested]
    label = np.broadcast_to(scores.label, tested.shape)[tested]
    table = reliability(label, probability)
    # Networks share subjects: the pooled count would make the bars too short by up to sqrt(J).
    shrink = np.sqrt(len(scores.score))
    for name in ("observed_low", "observed_high"):
        gap = (table[name] - table["observed"]) * shrink
        table[name] = (table["observed"] + gap).clip(0, 1)
    return table


def training_figures(analysis: Analysis) -> list[Picture]:
    """Loss per epoch of every fold, with the epoch that was kept."""
    history = analysis.history
    if history.empty or "validation_loss" not in history.columns:
        return []
    made = []
    groups = dict(list(history.groupby(["run", "stage"], sort=False)))
    place = {run: at for at, run in enumerate(analysis.ordered({run for run, _ in groups}))}
    for run, stage in sorted(groups, key=lambda key: (place[key[0]], layer_order(key[1]))):
        rows = groups[(run, stage)]
        shown = rows[rows["repeat"] == rows["repeat"].min()]
        count = rows["repeat"].nunique()
        part = f" (the first of {count} fifths)" if count > 1 else ""
        title = f"{analysis.label(run, stage)}{part}"
        caption = f"Training of {title}: loss of each fold"
        if _held_out(shown):
            caption += "; the ring marks the epoch kept."
        else:
            caption += ". Its number of epochs was fixed; no scan was held out."
        figure = drawn(_training(shown), 7.4, 2.7, analysis.simulated, title)
        made.append(Picture(f"training-{run}-{stage}", caption, figure))
    return made


def _held_out(rows: pd.DataFrame) -> bool:
    return bool(pd.to_numeric(rows["validation_loss"], errors="coerce").notna().any())


def _training(rows: pd.DataFrame) -> Callable[[Figure], None]:
    curves = [("training", "train_loss")]
    if _held_out(rows):
        curves.append(("held out", "validation_loss"))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for place, (fold, line) in enumerate(rows.groupby("fold")):
            colour, dash = f"C{place % 8}", LINES[place % 8]
            line = line.sort_values("epoch")
            chosen = "best" in line and len(curves) > 1
            best = line[line["best"].fillna(False).astype(bool)].tail(1) if chosen else None
            for axes, (_, name) in zip(panels, curves, strict=True):
                values = pd.to_numeric(line.get(name), errors="coerce")
                axes.plot(line["epoch"], values, color=colour, linestyle=dash, label=str(fold))
                if best is not None:
                    kept = pd.to_numeric(best.get(name), errors="coerce")
                    axes.plot(best["epoch"], kept, "o", color=colour, mfc="white", mew=1.4)
        for axes, (title, _) in zip(panels, curves, strict=True):
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel("loss (cross-entropy)")
        _legend_beside(figure, panels[0], "fold")

    return draw
