"""How many labels of the target a way of adapting needs: a curve, and where it first gains."""

import pandas as pd
from matplotlib.figure import Figure

from mri_jax.adaptation import parted
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.evaluation.operating import ARGMAX, REFITTED
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.reporting.figures import INTERVALS
from mri_jax.runs.labels import of_stage, titled
from mri_jax.showing.figures import LINES, MARKERS, Picture, drawn, wrapped
from mri_jax.showing.numbers import interval, signed
from mri_jax.showing.table import Cell, Table, text

ALPHA = 0.05
_RIVALS = (
    ("source network", "auc", ARGMAX, "AUC"),
    ("its refitted threshold", "bac", REFITTED, "BAC"),
)
"""What a method is to beat: its name, the score, the source network's operating point."""


def numbers(section: FamilyAnalysis, analysis: Analysis) -> dict[str, int]:
    """Returns with how many labelled subjects each method of a table was adapted, by its name."""
    rows = analysis.predictions
    found = {SOURCE: 0}
    for method in section.family.networks:
        own = rows[(rows["run"] == method.run) & (rows["stage"] == method.stage)]
        shown = own[own["split"].eq("adaptation")]
        if method.stage == SOURCE:
            found[method.name] = 0
        elif len(shown):
            found[method.name] = int(
                shown.groupby(["repeat", "fold"])["subject_id"].nunique().max()
            )
    return found


def ways(section: FamilyAnalysis) -> dict[str, list[Method]]:
    """Returns the methods of a table by their way of adapting, from few labels to many."""
    found: dict[str, list[Method]] = {}
    for method in section.family.networks:
        if method.stage != SOURCE:
            found.setdefault(parted(method.stage)[0], []).append(method)
    return found


def gains_table(section: FamilyAnalysis, analysis: Analysis) -> Table:
    """Returns the least number of labels with a clear gain over source and refitted threshold."""
    known, rows, data = numbers(section, analysis), [], []
    tested = section.differences[section.differences["split"].eq("test")]
    for cohort in section.cohorts if section.family.key.startswith("labels") else ():
        for way, methods in ways(section).items():
            cells = [text(titled(of_stage(way))), text(cohort)]
            for rival, metric, point, shown in _RIVALS:
                gain = _first(tested, cohort, [m.name for m in methods], metric, point)
                count = known.get(str(gain["first"])) if gain is not None else None
                told = "none of these"
                if gain is not None:
                    limits = interval(gain["low"], gain["high"])
                    told = f"{count} subjects\n{shown} {signed(gain['difference'])} {limits}"
                cells.append(Cell(told, float(count) if count is not None else float("inf")))
                data.append(
                    {"way": way, "cohort": cohort, "against": rival, "subjects": count}
                    | ({} if gain is None else dict(gain[["metric", "difference", "low", "high"]]))
                )
            rows.append(tuple(cells))
    note = (
        f"The least number of labelled subjects with a gain whose p, adjusted for all comparisons "
        f"of the table and score, is below {ALPHA:g}; the gain with its interval A in points. "
        "Fewer labels may do, if the test part is too small to show it; more may do less."
    )
    header = ("Way of adapting", "Tested on", *(f"Beats the {rival[0]}" for rival in _RIVALS))
    return Table(
        f"{section.family.key}-gains", "Labels until it gains", header, tuple(rows), note,
        pd.DataFrame(data), lead="With how many labels each way first beats the source network.",
    )  # fmt: skip


def _first(
    rows: pd.DataFrame, cohort: str, names: list[str], metric: str, point: str
) -> pd.Series | None:
    """Returns the first clear gain among methods in their order."""
    chosen = rows[rows["cohort"].eq(cohort) & rows["metric"].eq(metric) & rows["point"].eq(point)]
    clear = chosen[chosen["p_holm"].lt(ALPHA) & chosen["difference"].gt(0)].set_index(
        "first", drop=False
    )
    found = [name for name in names if name in clear.index]
    return clear.loc[found[0]] if found else None


def curve(section: FamilyAnalysis, analysis: Analysis) -> Picture:
    """Returns AUC and BAC against the number of labelled subjects, a line a way of adapting."""
    known = numbers(section, analysis)
    frame = section.summary[section.summary["split"].eq("test")]
    (cohort, *_) = section.cohorts

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharex=True)
        for axes, metric in zip(panels, ("auc", "bac"), strict=True):
            rows = frame[frame["metric"].eq(metric) & frame["cohort"].eq(cohort)]
            rows = rows.set_index("method")
            source = rows.loc[section.family.networks[0].name]
            axes.axhline(100 * source["mean"], color="0.35", linestyle=":", label="source")
            axes.axhspan(100 * source["a_low"], 100 * source["a_high"], color="0.35", alpha=0.1)
            for place, (way, methods) in enumerate(ways(section).items()):
                own = rows.reindex([m.name for m in methods])
                x = [known[m.name] * (1 + 0.02 * place) for m in methods]
                colour = f"C{place % 8}"
                axes.plot(
                    x, 100 * own["mean"], marker=MARKERS[place % 8], color=colour,
                    linestyle=LINES[place % 8], label=wrapped(titled(of_stage(way)), 22),
                )  # fmt: skip
                for name, thickness in (("b", 0.8), ("a", 2.2)):
                    axes.vlines(
                        x, 100 * own[f"{name}_low"], 100 * own[f"{name}_high"], color=colour,
                        linewidth=thickness, alpha=0.7,
                    )  # fmt: skip
            axes.set_title(metric.upper())
            axes.set_xscale("log")
            ticks = sorted({known[m.name] for group in ways(section).values() for m in group})
            axes.set_xticks(ticks, list(map(str, ticks)))
            axes.minorticks_off()
            axes.set_xlabel("labelled subjects of the target")
        panels[0].set_ylabel("percent")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    title = f"Tested on {cohort} ({section.subjects(cohort)})"
    caption = (
        f"{section.title}, tested on the same subjects throughout: {cohort} "
        f"({section.subjects(cohort)}). Mean over networks and draws. {INTERVALS} Dotted, with a "
        "band: the source network, and its interval A."
    )
    figure = drawn(draw, 9.4, 3.2, analysis.simulated, title)
    return Picture(f"{section.family.key}-curve", caption, figure)
