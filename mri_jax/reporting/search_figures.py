"""Figures of a search: history, front, importance, slices, parallel coordinates."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mri_jax.evaluation.importance import on_front
from mri_jax.reporting.search import WORDS, SearchAnalysis
from mri_jax.runs.search import PREFIX
from mri_jax.settings.search import OBJECTIVES
from mri_jax.settings.space import Line
from mri_jax.showing.figures import MARKERS, Picture, drawn, wrapped

_COLUMNS = 4
_FOOT = -0.24
"""Where a field stands in parallel coordinates that a trial did not draw."""


def search_figures(search: SearchAnalysis, simulated: bool) -> list[Picture]:
    """Returns the figures of a search that has finished trials."""
    if search.complete.empty:
        return []
    name = WORDS[search.objective]
    lines = -(-len(search.lines) // _COLUMNS)
    against = _other(search)
    made = (
        (
            "history", _history(search), (5.4, 3.6),
            (f"Every finished trial's {name} on its own held-out folds, and the best so far. Ticks "
            "at the bottom: trials that were pruned."),
        ),
        (
            "front", _front(search, against), (5.4, 3.6),
            (f"{name[:1].upper()}{name[1:]} against {WORDS[against]} of every finished trial; the "
            "line joins those that no other one beats in both."),
        ),
        (
            "importance", _importance(search), (6.4, 0.8 + 0.26 * len(search.lines)),
            (f"Percent of the variance of the {name} that each field explains by itself, with 95% "
            "intervals; 0 is expected where it does not matter."),
        ),
        (
            "slices", _slices(search), (9.4, 0.4 + 2.1 * lines),
            f"The {name} of finished trials against each field by itself.",
        ),
        (
            "parallel", _parallel(search), (9.4, 3.6),
            (f"A line is a finished trial: its fields, and its {name} at the right. The best "
            "quarter is dark."),
        ),
    )  # fmt: skip
    return [
        Picture(f"{search.key}-{key}", caption, drawn(draw, *size, simulated, _title(key)))
        for key, draw, size, caption in made
        if key != "importance" or any(np.isfinite(each.share) for each, _ in search.importances)
    ]


def _title(key: str) -> str:
    titles = {"front": "Score and cost", "parallel": "All fields", "slices": "Field by field"}
    return titles.get(key, key.capitalize())


def _other(search: SearchAnalysis) -> str:
    """Returns what stands against the first objective: the second one, or what a network costs."""
    return [*search.study.search.objectives[1:], "multiply_adds"][0]


def _scale(name: str) -> float:
    return 100.0 if name == "auc" else 1.0


def _named(name: str) -> str:
    return f"{WORDS[name]}, percent" if name == "auc" else WORDS[name]


def _groups(search: SearchAnalysis) -> Iterator[tuple[int, str, pd.DataFrame]]:
    rows = search.complete
    for place, (kind, called) in enumerate(search.kinds.items()):
        yield place, called, rows[rows["search"].eq(kind)]


def _history(search: SearchAnalysis) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes, scale = figure.add_subplot(), _scale(search.objective)
        every = search.searched.trials
        for (place, called, rows), kind in zip(_groups(search), search.kinds, strict=True):
            values = scale * rows[search.objective]
            best = search.sign * (search.sign * values).cummax()
            axes.plot(
                rows["trial"], values, MARKERS[place], color=f"C{place}", markersize=4, alpha=0.7
            )
            axes.step(rows["trial"], best, where="post", color=f"C{place}", label=called)
            lost = every[every["search"].eq(kind) & ~every["trial"].isin(rows["trial"])]
            axes.plot(
                lost["trial"], np.full(len(lost), 0.02 + 0.04 * place), "|", color=f"C{place}",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set(xlabel="trial", ylabel=_named(search.objective))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return draw


def _front(search: SearchAnalysis, against: str) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes, first = figure.add_subplot(), search.objective
        for place, called, rows in _groups(search):
            axes.plot(
                rows[against], _scale(first) * rows[first], MARKERS[place], color=f"C{place}",
                markersize=4.5, alpha=0.8, label=called,
            )  # fmt: skip
        rows = search.complete
        signs = [1 if OBJECTIVES[name] == "maximize" else -1 for name in (first, against)]
        best = rows[on_front(rows[[first, against]].to_numpy(float), signs)].sort_values(against)
        axes.plot(
            best[against], _scale(first) * best[first], color="0.3", linewidth=1.0,
            drawstyle="steps-post", label="front",
        )  # fmt: skip
        if (rows[against] > 0).all() and np.ptp(np.log10(rows[against])) > 1:
            _logarithmic(axes)
        axes.set(xlabel=WORDS[against], ylabel=_named(first))
        axes.legend()

    return draw


def _importance(search: SearchAnalysis) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        found = [each for each, _ in search.importances]
        for place, each in enumerate(found):
            axes.hlines(place, 100 * each.low, 100 * each.high, color="C0", linewidth=2.2)
            axes.plot(100 * each.share, place, "o", color="C0", markersize=5)
        axes.axvline(0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_yticks(range(len(found)), [each.field for each in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(left=max(axes.get_xlim()[0], -60.0))  # intervals of few trials go on and on
        axes.set_xlabel("percent of the variance")

    return draw


def _slices(search: SearchAnalysis) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        count = len(search.lines)
        grid = figure.subplots(-(-count // _COLUMNS), min(_COLUMNS, count), squeeze=False)
        panels = list(grid.ravel())
        for axes in panels[count:]:
            axes.set_visible(False)
        for axes, line in zip(panels, search.lines, strict=False):
            names = _names(search, line)
            for place, called, rows in _groups(search):
                x = _places(rows, line, names)
                axes.plot(
                    x, _scale(search.objective) * rows[search.objective], MARKERS[place],
                    color=f"C{place}", markersize=3.5, alpha=0.8, label=called,
                )  # fmt: skip
            _axis(axes, line, names)
            axes.set_title(wrapped(line.field, 24), fontsize=8)
        for row in grid:
            row[0].set_ylabel(_named(search.objective), fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)

    return draw


def _names(search: SearchAnalysis, line: Line) -> list[str]:
    """Returns the values of a choice, in the order of the space as far as trials have them."""
    if line.type != "choice":
        return []
    found = search.complete[f"{PREFIX}{line.field}"]
    return sorted(name for name in found.unique() if name)


def _places(rows: pd.DataFrame, line: Line, names: list[str]) -> np.ndarray:
    """Returns where the values of a field stand; NaN where it was not drawn."""
    column = rows[f"{PREFIX}{line.field}"]
    if line.type != "choice":
        return column.to_numpy(float)
    return np.array([names.index(v) if v in names else np.nan for v in column], float)


def _axis(axes: Axes, line: Line, names: list[str]) -> None:
    if line.type == "choice":
        axes.set_xticks(range(len(names)), [wrapped(n, 10) for n in names], fontsize=6.5)
        axes.set_xlim(-0.5, max(0.5, len(names) - 0.5))
    elif line.log:
        _logarithmic(axes)
    elif line.type == "int":
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _parallel(search: SearchAnalysis) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes, rows = figure.add_subplot(), search.complete
        columns, ticks = [], []
        for line in search.lines:
            names = _names(search, line)
            values = _places(rows, line, names)
            if line.log:
                values = np.log(values)
            there = values[~np.isnan(values)]
            ends = (there.min(), there.max()) if len(there) else (np.nan, np.nan)
            low, high = (0, len(names) - 1) if names else ends
            columns.append((values - low) / (high - low) if high > low else 0 * values + 0.5)
            if not len(there):
                ticks.append(("never drawn", ""))
            elif names:
                ticks.append((names[0], names[-1]))
            else:
                ticks.append((_number(line, low), _number(line, high)))
        score = rows[search.objective].to_numpy(float)
        low, high = score.min(), score.max()
        columns.append((score - low) / (high - low) if high > low else 0 * score + 0.5)
        scale = _scale(search.objective)
        ticks.append((f"{scale * low:.3g}", f"{scale * high:.3g}"))
        table = np.nan_to_num(np.stack(columns, axis=1), nan=_FOOT)
        worth = search.sign * score
        good = worth >= np.quantile(worth, 0.75)
        colours = colormaps["viridis"](0.15 + 0.7 * (1 - columns[-1]))
        for place in np.argsort(worth):
            axes.plot(
                table[place], color=colours[place], alpha=0.95 if good[place] else 0.25,
                linewidth=1.5 if good[place] else 0.9, marker=".", markersize=3,
            )  # fmt: skip
        labels = [line.field.replace(".", ".\n", 1) for line in search.lines]
        labels.append(WORDS[search.objective])
        axes.set_xticks(range(len(labels)), labels, fontsize=6.5, rotation=30)
        for place, (least, most) in enumerate(ticks):
            axes.axvline(place, color="0.8", linewidth=0.6, zorder=0)
            axes.text(place, -0.03, wrapped(least, 12), ha="center", va="top", fontsize=6)
            axes.text(place, 1.04, wrapped(most, 12), ha="center", va="bottom", fontsize=6)
        axes.set_ylim(_FOOT - 0.06, 1.18)
        axes.set_yticks([])
        axes.grid(False)

    return draw


def _number(line: Line, value: float) -> str:
    """Returns a value of a field in few digits."""
    return f"{np.exp(value) if line.log else value:.3g}"
