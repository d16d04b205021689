"""Every site left out once: a row a site, the mean over sites, a new site, and what was learnt."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mri_jax.evaluation import two_sample
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.evaluation.left_out import LEAST, Gain, LeftOut, SiteScore
from mri_jax.evaluation.random_effects import RandomEffects
from mri_jax.problems import counted
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.reporting.figures import PLAIN
from mri_jax.reporting.forest import Forest, Row
from mri_jax.runs.labels import label, of_stage, titled
from mri_jax.showing.figures import MARKERS, Picture, drawn, wrapped
from mri_jax.showing.numbers import DASH, interval, p_value, percent
from mri_jax.showing.table import Cell, Table, text, without_empty

MEAN, NEW = "Mean over sites", "A new site"
_NAMED = {
    "age": "age",
    "sex": "being a woman",
    "snr": "signal-to-noise ratio",
    "correlation": "correlation with the template",
    "leakage": "mask beyond the template's brain",
}
"""What people call the columns of `analysis.COVARIATES`."""


def of_section(section: FamilyAnalysis) -> list[Table]:
    """Returns the tables of a section that leaves sites out; none of any other."""
    if section.left_out is None:
        return []
    made = (
        _scores(section, section.left_out),
        _learnt(section, section.left_out),
        _dependence(section, section.left_out),
    )
    return [table for table in made if table.rows]


def _scores(section: FamilyAnalysis, found: LeftOut) -> Table:
    """Returns a row a site with both intervals and its weight, then the mean and a new site."""
    rows, data = [], []
    for method, summary in found.summaries.items():
        named = titled(label(method))
        for site in (s for s in found.sites if s.method == method):
            data.append(_site_data(site))
            if not method.variant.is_baseline:
                rows.append(_site_row(site, named))
        for name, limits in _summed(summary).items():
            shown = "" if np.isnan(limits[0]) else percent(summary.mean)
            inside = interval(*limits) or DASH
            cells = (text(name), text(named), text(""), Cell(shown, summary.mean),
                     text(inside), text(""), text(""), text(""))  # fmt: skip
            rows.append(cells)
            data.append(
                {"method": method.name, "site": name, "auc": summary.mean, "low": limits[0],
                 "high": limits[1], "tau": summary.tau, "i_squared": summary.i_squared,
                 "q": summary.q, "p": summary.p}
            )  # fmt: skip
    gains = [titled(gain_sentence(m, gain)) for m, gain in found.gains.items()]
    more = " ".join([*gains, *filter(None, [unlike_sites(found)])])
    told = " ".join(f"{titled(label(m))}: {_spread(s)}." for m, s in found.summaries.items())
    note = (
        "AUC in percent of methods that saw all other sites, mean over the networks. A: these "
        "networks on new subjects of the site; B: retrained networks, too. Of baselines the sites "
        "are in the table of scores. Mean over sites: random effects "
        "on the logit scale (REML, with Hartung and Knapp's interval; a site's variance is that of "
        "B, or that of one of its networks on new subjects if larger); a new site: 95% prediction "
        f"interval of its true AUC (Higgins, Thompson and Spiegelhalter). {told}"
        f"{' ' if more else ''}{more}"
    )
    header = ("Site left out", "Method", " + ".join(reversed(section.classes)), "AUC", "A", "B",
              "Weight", "Note")  # fmt: skip
    columns, kept = without_empty(header, rows)
    return Table(
        f"{section.family.key}-left-out", "Every site left out once", columns, kept, note,
        pd.DataFrame(data),
        lead="How networks of all other sites do at each site, and at one that nobody has seen.",
    )  # fmt: skip


def _site_row(site: SiteScore, method: str) -> tuple[Cell, ...]:
    known = not np.isnan(site.a.estimate)
    spread = f"each network: {', '.join(percent(v) for v in site.each)}" if known else ""
    return (
        text(site.left_out),
        text(method),
        text(f"{site.counts[0]} + {site.counts[1]}"),
        Cell(percent(site.a.estimate), site.a.estimate, spread),
        text(interval(site.a.low, site.a.high) or DASH),
        text(interval(site.b.low, site.b.high) or DASH),
        Cell("" if np.isnan(site.weight) else f"{percent(site.weight, 0)}%", site.weight),
        text(site.note),
    )


def _site_data(site: SiteScore) -> dict[str, object]:
    return {
        "method": site.method.name, "site": site.left_out, "positive": site.counts[0],
        "negative": site.counts[1], "auc": site.a.estimate, "low": site.a.low,
        "high": site.a.high, "b_low": site.b.low, "b_high": site.b.high, "weight": site.weight,
        "note": site.note,
    }  # fmt: skip


def _summed(summary: RandomEffects) -> dict[str, tuple[float, float]]:
    """Returns the limits of the mean over sites and of a new site, by their names."""
    return {MEAN: (summary.low, summary.high), NEW: (summary.new_low, summary.new_high)}


def _spread(summary: RandomEffects) -> str:
    """Returns how unlike the sites are."""
    if np.isnan(summary.tau):
        return "too few sites for a spread between them"
    return (
        f"between sites τ {summary.tau:.2f} [{summary.tau_low:.2f}, {summary.tau_high:.2f}] on the "
        f"logit scale, I² {percent(summary.i_squared, 0)}%, homogeneity p {p_value(summary.p)}"
    )


def _learnt(section: FamilyAnalysis, found: LeftOut) -> Table:
    """Returns how well features of networks that never saw a site tell it from the others."""
    rows = [
        (
            text(row["left_out"]),
            Cell(percent(row["auc"]), row["auc"]),
            text(interval(row["low"], row["high"]) or DASH),
            Cell(percent(row["others"]), row["others"]),
        )
        for row in found.learnt.to_dict("records")
    ]
    note = (
        "AUC in percent of telling a site from all others by a "
        "multinomial logistic regression on the penultimate features of a network, "
        "cross-validated; mean over the networks, with a 95% interval that takes them as one. 50: "
        "the features do not tell. Scans: the site left out and the held-out ones of the sites "
        "trained on. Scanners tell sites apart, and so do ages, sexes and shares of patients. "
        f"{two_sample.LEAST} scans of a site are needed."
    )
    header = ("Site left out", "AUC of the site left out", "95%", "AUC of the sites trained on")
    return Table(
        f"{section.family.key}-learnt", "Does it learn the site?", header, tuple(rows), note,
        found.learnt, lead=site_sentence(found),
    )  # fmt: skip


def _dependence(section: FamilyAnalysis, found: LeftOut) -> Table:
    """Returns how the score of controls goes with age, sex and the quality of scans."""
    rows = []
    for row in found.dependence.to_dict("records"):
        limits = f"[{row['low']:.2f}, {row['high']:.2f}]"
        between = f"{row['least']:.2f} to {row['most']:.2f}"
        rows.append(
            (
                text(titled(_NAMED[row["covariate"]])),
                Cell(f"{row['rho']:.2f} {limits}", row["rho"]),
                text(between),
                Cell(str(row["controls"]), float(row["controls"])),
                Cell(str(row["sites"]), float(row["sites"])),
            )
        )
    note = (
        f"Spearman's correlation with the score of {section.classes[0]} subjects of the site left "
        "out (mean over its source networks), within a site, pooled by Fisher's z; 95% interval. "
        f"Sites with {LEAST} of them or more. The score is that for {section.classes[1]}: where it "
        "goes with age, a site of older people has more false alarms."
    )
    header = ("Among controls", "ρ with the score", "Sites from, to", "Controls", "Sites")
    return Table(
        f"{section.family.key}-dependence", "What the score goes with among controls", header,
        tuple(rows), note, found.dependence,
        lead="Whether the score of controls depends on age, sex and the quality of the scan.",
    )  # fmt: skip


def site_sentence(found: LeftOut) -> str:
    """Returns whether features tell sites apart and what the score goes with, in one sentence."""
    parts = []
    if len(found.learnt):
        auc = found.learnt["auc"]
        clear = int((found.learnt["low"] > 0.5).sum())
        ends = f"from {percent(auc.min(), 0)} to {percent(auc.max(), 0)}%"
        parts.append(
            f"features of networks that never saw a site tell it from the others with a mean AUC "
            f"of {percent(auc.mean(), 0)}% ({ends}, clearly at {clear} of "
            f"{counted(len(auc), 'site')})"
        )
    clear_ones = [
        f"{_NAMED[row['covariate']]} (ρ {row['rho']:.2f} [{row['low']:.2f}, {row['high']:.2f}])"
        for row in found.dependence.to_dict("records")
        if row["low"] > 0 or row["high"] < 0
    ]
    looked = [_NAMED[name] for name in found.dependence["covariate"]]
    if looked:
        parts.append(
            f"among controls the score goes with {' and '.join(clear_ones)}"
            if clear_ones
            else "among controls the score goes clearly with nothing that was looked at "
            f"({', '.join(looked)})"
        )
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}." if told else "Neither could be looked at."


def claims_of(section: FamilyAnalysis) -> list[tuple[str, str]]:
    """Returns what a section that leaves sites out says, (about, sentence) each."""
    found = section.left_out
    if found is None:
        return []
    said = []
    several = sum(not method.variant.is_baseline for method in found.summaries) > 1
    for method, summary in found.summaries.items():
        sites = [s for s in found.sites if s.method == method and not np.isnan(s.weight)]
        if method.variant.is_baseline:
            continue
        of = f"{of_stage(method.stage)}: " if several else ""
        if not sites:
            said.append(("AUC", f"{of}no site has an AUC with a variance."))
            continue
        worst, best = (f(sites, key=lambda s: s.a.estimate) for f in (min, max))
        over = f"{interval(summary.low, summary.high)} over {counted(len(sites), 'site')}"
        ends = (
            f"from {percent(worst.a.estimate)}% at {worst.left_out} to "
            f"{percent(best.a.estimate)}% at {best.left_out}"
        )
        said.append(("AUC", f"{of}a mean of {percent(summary.mean)}% {over}, {ends}."))
        new = interval(summary.new_low, summary.new_high)
        if new:
            said.append(
                ("New site", f"{of}an AUC within {new} is to be expected; {_spread(summary)}.")
            )
        if method in found.gains:
            said.append(("Adapting", gain_sentence(method, found.gains[method])))
    plain = "; ".join(
        f"{label(method)} {percent(s.mean)}% {interval(s.low, s.high)}"
        for method, s in found.summaries.items()
        if method.variant.is_baseline and not np.isnan(s.low)
    )
    if plain:
        said.append(("Baselines", f"means over sites: {plain}."))
    told = site_sentence(found)
    said.append(("Site", told[:1].lower() + told[1:]))
    if unlike := unlike_sites(found):
        said.append(("Small sites", f"{unlike[:1].lower()}{unlike[1:]}"))
    return said


def gain_sentence(method: Method, gain: Gain) -> str:
    """Returns what adapting changed on the sites where both were tested, and where it was not."""
    of = of_stage(method.stage)
    lacking = ""
    if gain.lacking:
        why = ", small sites left out together" if any("+" in s for s in gain.lacking) else ""
        lacking = f" Not adapted to: {', '.join(gain.lacking)}{why}."
    if not gain.sites:
        return f"{of}: no site at which the source was tested on the same scans.{lacking}"
    limits = interval(gain.low, gain.high)
    on = counted(len(gain.sites), "site")
    change = f"{100 * gain.difference:+.1f}".replace("-", "\N{MINUS SIGN}")
    return (
        f"{of} minus source at the same {on}: {change} points of AUC"
        f"{f' {limits}' if limits else ''}; there the source has {percent(gain.source)}%.{lacking}"
    )


def unlike_sites(found: LeftOut) -> str:
    """Returns which sites were tested together, and which never, in one sentence; or nothing."""
    names = dict.fromkeys(site.left_out for site in found.sites)
    parts = [
        f"{name.replace('+', ', ')} have too few scans of a class each (config.sites.minimum) and "
        "are left out together, as one site"
        for name in names
        if "+" in name
    ]
    if found.untested:
        parts.append(
            f"trained on and never tested, with one class alone or too few scans: "
            f"{', '.join(found.untested)}"
        )
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}." if told else ""


def of_networks(found: LeftOut) -> list[SiteScore]:
    """Returns the scores of source networks, a site each."""
    return [s for s in found.sites if s.method.stage == SOURCE and not s.method.variant.is_baseline]


def forest_of(section: FamilyAnalysis) -> Forest:
    """Returns source networks at each site, then the mean over sites of them and of baselines."""
    found = section.left_out
    assert found is not None
    sites = of_networks(found)
    summaries = {m: s for m, s in found.summaries.items() if m.stage == SOURCE}
    every = [v for s in sites for v in (*s.each, s.a.low, s.b.low)]
    every += [v for s in summaries.values() for v in (s.low, s.new_low)]
    low = max(0.0, float(np.floor(10 * np.nanmin([*every, 0.5]) - 0.1) / 10))

    def place(value: float) -> float:
        return round(100 * (value - low) / (1 - low), 2)

    def between(ends: tuple[float, float]) -> tuple[float, float] | None:
        return None if np.isnan(ends).any() else (place(ends[0]), place(ends[1]))

    rows = [
        Row(
            label=s.left_out,
            name=s.left_out,
            plain=False,
            dots=tuple(place(v) for v in s.each),
            mean=None if np.isnan(s.a.estimate) else place(s.a.estimate),
            thick=between((s.a.low, s.a.high)),
            thin=between((s.b.low, s.b.high)),
            value=percent(s.a.estimate),
            limits=interval(s.a.low, s.a.high) or s.note,
        )
        for s in sites
    ]
    rows += [
        Row(
            label=_named(name, method),
            name=name,
            plain=method.variant.is_baseline,
            dots=(),
            mean=None if np.isnan(summary.mean) or name != MEAN else place(summary.mean),
            thick=between(ends) if name == MEAN else None,
            thin=between(ends) if name != MEAN else None,
            value=percent(summary.mean) if name == MEAN else "",
            limits=interval(*ends),
        )
        for method, summary in summaries.items()
        for name, ends in _summed(summary).items()
        if name == MEAN or not method.variant.is_baseline
    ]
    return Forest(tuple(rows), place(0.5), 100 * low)


def _named(name: str, method: Method) -> str:
    """Returns what a row of a mean is called; that of the networks needs no more words."""
    return f"{name}, {label(method)}" if method.variant.is_baseline else name


def forest_picture(section: FamilyAnalysis, analysis: Analysis) -> Picture | None:
    """Returns the forest plot: a row a site with the stages side by side, and all means below."""
    found = section.left_out
    if found is None:
        return None
    names = list(dict.fromkeys(site.left_out for site in found.sites))
    networks = [method for method in found.summaries if not method.variant.is_baseline]
    plain = [method for method in found.summaries if method.variant.is_baseline]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, method in enumerate(networks):
            side = 0.0 if len(networks) == 1 else 0.5 * (number / (len(networks) - 1) - 0.5)
            colour, marker = f"C{number % 8}", MARKERS[number % 8]
            for site in (s for s in found.sites if s.method == method):
                place = names.index(site.left_out) + side
                axes.plot(100 * site.each, [place] * len(site.each), ".", color=colour, alpha=0.5,
                          markersize=4, mec="none")  # fmt: skip
                axes.hlines(place, 100 * site.b.low, 100 * site.b.high, color=colour, linewidth=0.8)
                axes.hlines(place, 100 * site.a.low, 100 * site.a.high, color=colour, linewidth=2.4)
                weight = 0 if np.isnan(site.weight) else site.weight
                axes.plot(100 * site.a.estimate, place, marker, color=colour,
                          markersize=4 + 14 * np.sqrt(weight / max(len(names), 1)))  # fmt: skip
            _diamond(axes, len(names) + 0.4 + side, found.summaries[method], colour)
            axes.plot([], [], marker, color=colour, label=titled(of_stage(method.stage)))
        for number, method in enumerate(plain):
            _diamond(axes, len(names) + 1.4 + number, found.summaries[method], PLAIN)
        axes.axvline(50, color="0.5", linewidth=0.7, linestyle=":")
        axes.axhline(len(names) - 0.3, color="0.7", linewidth=0.6)
        sizes = {s.left_out: f"{s.counts[0]} + {s.counts[1]}" for s in found.sites}
        ticks = [f"{name} ({sizes[name]})" for name in names]
        ticks += [MEAN, *(_named("Mean", method) for method in plain)]
        below = [len(names) + 0.4 + number for number in range(1 + len(plain))]
        axes.set_yticks([*range(len(names)), *below], [wrapped(tick, 34) for tick in ticks])
        axes.set_ylim(below[-1] + 0.7, -0.7)
        axes.set_xlabel("AUC, percent")
        if len(networks) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    caption = (
        f"{section.title}. Marker: mean over the networks of the site, its size the weight; small "
        "dots: each network; thick: these networks on new subjects (A); thin: retrained too (B). "
        "Diamond: mean over sites with its 95% interval (grey: of baselines); dashed: 95% "
        f"prediction interval of a new site. In brackets: {section.classes[1]} + "
        f"{section.classes[0]}. Dotted: 50%."
    )
    height = 1.4 + 0.34 * (len(names) + len(plain))
    figure = drawn(draw, 7.4, height, analysis.simulated, section.title)
    return Picture(f"{section.family.key}-forest", caption, figure)


def _diamond(axes: Axes, place: float, summary: RandomEffects, colour: str) -> None:
    """Draws a mean over sites with its interval, and that of a new site."""
    axes.hlines(place, 100 * summary.new_low, 100 * summary.new_high, color=colour,
                linewidth=0.8, linestyle="--")  # fmt: skip
    across = 100 * np.array([summary.low, summary.mean, summary.high, summary.mean])
    axes.fill(across, place + np.array([0, -0.18, 0, 0.18]), color=colour)
