"""How far apart two sites are in the features of networks, before and after adapting."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mri_jax import adaptation
from mri_jax.evaluation import two_sample
from mri_jax.evaluation.delong import Interval
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs import results
from mri_jax.runs.labels import of_stage, titled
from mri_jax.showing.figures import Picture, drawn, wrapped
from mri_jax.showing.numbers import interval, percent
from mri_jax.showing.table import Cell, Table, text

_PANELS = 8
"""At most so many networks stand in the figure."""


def sites_table(section: FamilyAnalysis, analysis: Analysis) -> Table:
    """Returns how well the sites can be told apart from the features of each method's networks."""
    rows, data = [], []
    features = _of_section(section, analysis)
    for method, networks in features.items():
        found = _auc(networks, analysis.seed)
        few = np.isnan(found.estimate)
        limits = interval(found.low, found.high)
        shown = "too few scans" if few else f"{percent(found.estimate)} {limits}"
        rows.append((text(titled(section.label(method.name))), Cell(shown, found.estimate)))
        about = {"method": method.name, "label": section.label(method.name)}
        data.append(about | {"auc": found.estimate, "low": found.low, "high": found.high})
    note = (
        "AUC in percent of telling the target's test scans from held-out source scans by a "
        "logistic regression on the penultimate features, cross-validated; mean over the networks, "
        "with a 95% interval that takes them as one. 50: the features do not tell the sites apart. "
        "Scanners tell them apart, and so do ages, sexes and shares of patients. "
        f"{two_sample.LEAST} scans of each site are needed."
    )
    return Table(
        f"{section.family.key}-sites", "How different the sites are", ("Method", "AUC of the site"),
        tuple(rows), note, pd.DataFrame(data),
        lead="How well the two sites can be told apart from what the networks make of a scan.",
    )  # fmt: skip


def sites_figure(section: FamilyAnalysis, analysis: Analysis) -> Iterator[Picture]:
    """Yields the features of the first fold's networks along their two largest components.

    Methods without labels come first: they are meant to bring the sites together.
    """
    features = {m: n[0] for m, n in _of_section(section, analysis).items() if n}
    if not features:
        return
    shown = dict(sorted(features.items(), key=_with_labels)[:_PANELS])
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)

    def draw(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        for axes, (method, network) in zip(panels, shown.items(), strict=False):
            places = components(network["features"])
            for colour, (site, cohort) in enumerate(_cohorts(network)):
                for label, marker in ((0, "o"), (1, "^")):
                    chosen = site & (network["label"] == label)
                    axes.scatter(
                        *places[chosen].T, s=12, marker=marker, color=f"C{colour}", alpha=0.75,
                        linewidths=0, label=f"{cohort}, {section.classes[label]}",
                    )  # fmt: skip
            axes.set_title(wrapped(titled(of_stage(method.stage)), 26), fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)

    caption = (
        f"{section.title}: penultimate features of the networks of fold 0, along the two principal "
        "components of each network's own. A dot is a held-out source scan or a test scan of the "
        "target. Sites that lie apart are told apart; classes should be."
    )
    figure = drawn(draw, 9.4, 0.5 + 2.3 * lines, analysis.simulated, section.title)
    yield Picture(f"{section.family.key}-sites", caption, figure)


def _with_labels(item: tuple[Method, Mapping[str, np.ndarray]]) -> bool:
    stage = item[0].stage
    way = adaptation.of_stage(stage)
    return not (stage == SOURCE or (way is not None and way.label_free))


def components(features: np.ndarray) -> np.ndarray:
    """Returns (N, 2) of (N, F) features along their two largest principal components.

    Features are standardised; a constant one is left out.
    """
    wide = np.asarray(features, float)
    spread = wide.std(axis=0)
    standard = (wide - wide.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    left, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    places = np.zeros((len(wide), 2))
    kept = min(2, len(sizes))
    places[:, :kept] = left[:, :kept] * sizes[:kept]
    return places


def _of_section(
    section: FamilyAnalysis, analysis: Analysis
) -> dict[Method, list[dict[str, np.ndarray]]]:
    """Returns features, cohort, target and label of each network, by method; none elsewhere."""
    if not section.family.key.startswith("adaptation"):
        return {}
    arrays, found = analysis.arrays(results.FEATURES), {}
    for method in section.family.networks:
        networks = []
        for fold in range(len(arrays)):
            name = f"{method.run}/{method.stage}/fold{fold}/features"
            if name not in arrays:
                break
            own = f"{method.run}/fold{fold}"
            about = {n: arrays[f"{own}/{n}"] for n in ("cohort", "target", "label")}
            networks.append({"features": arrays[name], **about})
        if networks:
            found[method] = networks
    return found


def _cohorts(network: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, str]]:
    """Returns which scans are of each cohort, and its name."""
    names = dict.fromkeys(map(str, network["cohort"]))
    return [(network["cohort"] == name, name) for name in names]


def _auc(networks: Sequence[Mapping[str, np.ndarray]], seed: int) -> Interval:
    """Returns the AUC of the target against the source; NaN where a site has too few scans."""
    pairs = []
    for network in networks:
        site = network["target"].astype(int)
        if min(site.sum(), (1 - site).sum()) < two_sample.LEAST:
            return Interval(float("nan"), float("nan"), float("nan"))
        pairs.append((network["features"], site))
    return two_sample.site_auc(pairs, seed)
