"""From results folders to tables, figures and the page: ``python -m mri_jax report RUN ...``."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.reporting import (
    demographics,
    label_curve,
    left_out,
    page,
    sites,
    tables,
    trainings,
)
from mri_jax.reporting.analysis import Analysis, analyse, load_runs
from mri_jax.reporting.compared import published_table
from mri_jax.reporting.costs import cost_table
from mri_jax.reporting.figures import score_figures
from mri_jax.reporting.figures_detail import detail_figures, training_figures
from mri_jax.reporting.figures_layers import layer_figures
from mri_jax.reporting.search import searches
from mri_jax.reporting.search_figures import search_figures
from mri_jax.reporting.search_tables import search_tables
from mri_jax.reporting.words import in_words
from mri_jax.runs import results
from mri_jax.showing import figures, forms
from mri_jax.showing.figures import Picture

SHAREABLE = "report-shareable.html"


@dataclass(frozen=True)
class Written:
    """What a report wrote.

    Attributes:
      page: The HTML file.
      tables: How many tables (each in three forms).
      figures: How many figures (each in two forms); 0 for a shareable page, which embeds them.
      words: What was found, in a few lines.
    """

    page: epath.Path
    tables: int
    figures: int
    words: list[str]


def write_report(
    runs: Sequence[str],
    out: epath.PathLike | None = None,
    share: bool = False,
    published: pd.DataFrame | None = None,
    seed: int | None = None,
) -> Written:
    """Everything a reader needs from finished runs, without retraining.

    Args:
      runs: Results folders.
      out: Where to write; by default the run's own folder, or ``report/`` beside the first of
        several runs.
      share: Write `SHAREABLE` alone: no subject ids, dates, scan images, rows of single subjects,
        or feature maps of real scans.
      published: Values a paper printed, from `published.read_published`.
      seed: Seed of bootstrap and permutations; by default the first run's own, so that a report
        drawn again holds the numbers of the first.

    Raises:
      UserError: A run cannot be read, or the runs cannot be compared.
    """
    loaded = load_runs(list(runs))
    analysis = analyse(loaded, loaded[0].seed if seed is None else seed)
    marks, found = trainings.marks(analysis), searches(analysis)
    folder = epath.Path(out) if out is not None else _default_folder(analysis)
    made = {
        s.family.key: [
            table
            for table in (
                *left_out.of_section(s),
                *tables.tables_of(s, published, marks),
                cost_table(s, analysis),
                label_curve.gains_table(s, analysis),
                sites.sites_table(s, analysis),
            )
            if table.rows
        ]
        for s in analysis.sections
    }
    of_search = [(search_tables(each), search_figures(each, analysis.simulated)) for each in found]
    drawn = _figures(analysis, share)
    beside = published_table(analysis, published)
    text = page.render(analysis, made, drawn, beside, share, found, of_search)
    if share:
        files.write_text(folder / SHAREABLE, text)
        return Written(
            folder / SHAREABLE, sum(map(len, made.values())), 0, in_words(analysis, found)
        )
    every = [table for group in made.values() for table in group]
    every += [table for found_tables, _ in of_search for table in found_tables]
    people = [demographics.demographics_table(analysis), demographics.flow_table(analysis)]
    every += [table for table in people if table.rows] + ([beside] if beside else [])
    for table in every:
        forms.write(folder / results.TABLES, table, analysis.simulated)
    pictures = [picture for group in drawn.values() for picture in group]
    pictures += [picture for _, found_pictures in of_search for picture in found_pictures]
    for picture in pictures:
        figures.write(folder / results.FIGURES, picture)
    files.write_text(folder / results.REPORT, text)
    return Written(folder / results.REPORT, len(every), len(pictures), in_words(analysis, found))


def _default_folder(analysis: Analysis) -> epath.Path:
    if len(analysis.runs) == 1:
        return analysis.runs[0].path
    return analysis.runs[0].path.parent / "report"


def _figures(analysis: Analysis, share: bool) -> dict[str, list[Picture]]:
    """Returns figures by the key of their section; details, training and first layer apart."""
    found: dict[str, list[Picture]] = {}
    keys = sorted((s.family.key for s in analysis.sections), key=len, reverse=True)
    for section in analysis.sections:
        if section.family.key.startswith("labels"):
            found[section.family.key] = [label_curve.curve(section, analysis)]
        if plot := left_out.forest_picture(section, analysis):
            found[section.family.key] = [plot]
        if not share:  # its dots are single subjects
            for picture in sites.sites_figure(section, analysis):
                found.setdefault(section.family.key, []).append(picture)
    for picture in score_figures(analysis):
        found.setdefault(_section_of(picture, keys), []).append(picture)
    for picture in detail_figures(analysis):
        found.setdefault(f"{_section_of(picture, keys)}/details", []).append(picture)
    found["training"] = training_figures(analysis)
    found["layers"] = layer_figures(analysis, share)
    return found


def _section_of(picture: Picture, keys: Sequence[str]) -> str:
    return next(key for key in keys if picture.key.startswith(f"{key}-"))
