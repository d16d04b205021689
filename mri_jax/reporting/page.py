"""The one self-contained page; every text from data is escaped by the template engine."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from mri_jax.errors import UserError
from mri_jax.reporting import confusions, demographics, overview, search_words
from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.compared import compared
from mri_jax.reporting.findings import findings, wrong
from mri_jax.reporting.methods import REFERENCES, methods_paragraphs
from mri_jax.reporting.search import SearchAnalysis
from mri_jax.runs.results import Results
from mri_jax.showing import pages
from mri_jax.showing.figures import Picture
from mri_jax.showing.simulated import BANNER
from mri_jax.showing.table import Table

LIMIT = 15_000_000
"""Bytes a page may have."""
# What --shareable removes: fields that hold places, people or times.
_PRIVATE = ("command", "store", "cohort", "workdir", "stages", "path", "host", "user", "date",
            "time", "started", "finished", "subject", "session", "scan", "platform")  # fmt: skip


def render(
    analysis: Analysis,
    tables: dict[str, list[Table]],
    pictures: dict[str, list[Picture]],
    beside: Table | None,
    share: bool,
    found: Sequence[SearchAnalysis] = (),
    of_search: Sequence[tuple[list[Table], list[Picture]]] = (),
) -> str:
    """Returns the page.

    Args:
      analysis: The statistics.
      tables: For each family's key, its tables.
      pictures: For each family's key, its figures; ``KEY/details``, ``training`` and ``layers``
        beside.
      beside: Our scores beside those that a paper printed; None without any.
      share: Leave out subjects, dates, scan images and feature maps of real scans.
      found: The searches among the runs.
      of_search: Tables and figures of each.

    Raises:
      UserError: The page would be larger than `LIMIT`.
    """
    if share:
        numbered = tuple(f"Run {number + 1}" for number in range(len(analysis.runs)))
        analysis = dataclasses.replace(analysis, names=numbered)
    named = zip(analysis.names, analysis.runs, strict=True)
    sections = [
        {
            "key": s.family.key,
            "short": s.short,
            "title": s.title,
            "tables": tables[s.family.key],
            "pictures": pictures.get(s.family.key, []),
            "decisions": confusions.of_section(s, analysis.predictions),
            "classes": s.classes,
            "details": pictures.get(f"{s.family.key}/details", []),
        }
        for s in analysis.sections
    ]
    page = pages.render(
        "reporting/report.html.j2",
        interactive=True,
        banner=BANNER if analysis.simulated else "",
        title="Results" if share else f"Results: {', '.join(analysis.names)}",
        subtitle=overview.subtitle(analysis),
        simulated=analysis.simulated,
        share=share,
        compared=compared(analysis),
        several=len(analysis.sections) > 1 or len(analysis.runs) > 1,
        beside=beside,
        findings=findings(analysis),
        wrong=wrong(analysis),
        meaningless=any(run.study is not None and run.study.smoke for run in analysis.runs),
        cautions=cautions(analysis),
        overview=overview.runs_table(analysis),
        networks=overview.networks_table(analysis),
        demographics=demographics.demographics_table(analysis),
        flow=demographics.flow_table(analysis),
        sections=sections,
        searches=[
            {"claims": list(search_words.claims(each)), "tables": made, "pictures": shown}
            for each, (made, shown) in zip(found, of_search, strict=True)
        ],
        training=pictures.get("training", []),
        layers=pictures.get("layers", []),
        methods=methods_paragraphs(analysis),
        references=REFERENCES,
        runs=[_described(name, run, share) for name, run in named],
    )
    if len(page.encode()) > LIMIT:
        raise UserError(
            f"report: the page would have {len(page.encode()) / 1e6:.1f} MB, more than "
            f"{LIMIT / 1e6:.0f}; report fewer runs together"
        )
    return page


def _described(name: str, run: Results, share: bool) -> dict[str, str]:
    config = run.study.to_json() if run.study else {}
    provenance = run.provenance.to_json() if run.provenance else {}
    if share:
        config, provenance = _public(config), _public(provenance)
    return {
        "name": name,
        "config": json.dumps(config, indent=2, sort_keys=True),
        "provenance": json.dumps(provenance, indent=2, sort_keys=True),
    }


def _public(value: Any) -> Any:
    """Returns a copy without private fields and without anything that looks like a path."""
    if isinstance(value, dict):
        return {
            k: _public(v)
            for k, v in value.items()
            if not any(word == k.lower() or k.lower().endswith(f"_{word}") for word in _PRIVATE)
        }
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return "(removed)"
    return value
