"""The one self-contained page; every text from data is escaped by the template engine."""

import dataclasses
import json
from typing import Any

from mri_jax.errors import UserError
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.variants import of_baselines, of_rows
from mri_jax.reporting import demographics, trainings
from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.findings import findings
from mri_jax.reporting.methods import REFERENCES, methods_paragraphs
from mri_jax.runs.results import Results
from mri_jax.showing import pages
from mri_jax.showing.figures import Picture
from mri_jax.showing.numbers import DASH
from mri_jax.showing.simulated import BANNER
from mri_jax.showing.table import Cell, Table, from_rows, text, without_empty

LIMIT = 15_000_000
"""Bytes a page may have."""
# What --shareable removes: fields that hold places, people or times.
_PRIVATE = ("command", "store", "cohort", "workdir", "stages", "path", "host", "user", "date",
            "time", "started", "finished", "subject", "session", "scan", "platform")  # fmt: skip


def render(
    analysis: Analysis,
    tables: dict[str, list[Table]],
    pictures: dict[str, list[Picture]],
    share: bool,
) -> str:
    """The page.

    Args:
      analysis: The statistics.
      tables: For each family's key, its tables.
      pictures: For each family's key, its figures; ``KEY/details``, ``training`` and ``layers``
        beside.
      share: Leave out subjects, dates, scan images and feature maps of real scans.

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
            "short": s.family.key.replace("-", " "),
            "title": s.family.title,
            "tables": tables[s.family.key],
            "pictures": pictures.get(s.family.key, []),
            "details": pictures.get(f"{s.family.key}/details", []),
        }
        for s in analysis.sections
    ]
    page = pages.render(
        "reporting/report.html.j2",
        interactive=True,
        banner=BANNER if analysis.simulated else "",
        title="Results" if share else f"Results: {', '.join(analysis.names)}",
        subtitle=_subtitle(analysis),
        simulated=analysis.simulated,
        share=share,
        findings=findings(analysis),
        meaningless=any(run.study is not None and run.study.smoke for run in analysis.runs),
        cautions=cautions(analysis),
        overview=runs_table(analysis),
        networks=networks_table(analysis),
        demographics=demographics.demographics_table(analysis),
        flow=demographics.flow_table(analysis),
        sections=sections,
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


def _subtitle(analysis: Analysis) -> str:
    rows = analysis.predictions
    networks = rows.loc[~of_baselines(rows), ["run", "stage", "repeat", "fold"]]
    count = len(networks.drop_duplicates())
    scans = len(rows[["subject_id", "session_id"]].drop_duplicates())
    comparisons = len(analysis.sections)
    return f"{count} networks, {scans} scans, {comparisons} comparison{'s' * (comparisons != 1)}"


def runs_table(analysis: Analysis) -> Table:
    """Each run's question and where it was computed; a study's variants may override the source."""
    rows = []
    for name, run in zip(analysis.names, analysis.runs, strict=True):
        study = run.study
        devices = run.provenance.get("devices", [])
        kinds = [
            f"{devices.count(kind)} × {kind}" if devices.count(kind) > 1 else str(kind)
            for kind in dict.fromkeys(devices)
        ]
        asked = (
            ("",) * 5
            if study is None
            else (
                f"{study.name}:{study.preset}",
                f"{study.task.positive} against {study.task.negative}",
                ", ".join(study.source.cohorts),
                ", ".join(study.targets),
                str(study.seed),
            )
        )
        rows.append((name, *(value or DASH for value in (*asked, ", ".join(kinds)))))
    header = ("Run", "Config", "Task", "Source", "Targets", "Seed", "Device")
    note = "Variants of a run may override its task, source or network; the table below lists them."
    return from_rows("runs", "Runs", header, rows, note)


def networks_table(analysis: Analysis) -> Table:
    """Every network variant and stage: how many networks, what they trained."""
    rows = []
    plan, marks = analysis.plan, trainings.marks(analysis)
    frame = analysis.predictions.groupby(["run", "stage"], sort=False)
    variants = of_rows(analysis.predictions)
    for (run, stage), group in sorted(frame, key=lambda item: variants[item[0][0]].is_baseline):
        count = len(group[["repeat", "fold"]].drop_duplicates())
        if stage == "source":
            count = group["fold"].nunique()
        trained = ""
        if len(plan) and "trainable_parameters" in plan.columns:
            found = plan[(plan["run"] == run) & (plan["stage"] == stage)]["trainable_parameters"]
            known = found.dropna()
            trained = f"{int(known.iloc[0]):,}" if len(known) else ""
        cohorts = ", ".join(dict.fromkeys(group.loc[group["split"].eq("test"), "cohort"]))
        value = float(trained.replace(",", "")) if trained else float("nan")
        rows.append(
            (
                text(run),
                text(stage),
                Cell(str(count), float(count)),
                Cell(trained or DASH, value),
                text(cohorts or DASH),
                text(marks.get(Method(run, stage).name, "")),
            )
        )
    header = ("Run", "Stage", "Networks", "Parameters trained", "Tested on", "Remarks")
    columns, shown = without_empty(header, rows)
    return Table("networks", "Networks", columns, shown)


def _described(name: str, run: Results, share: bool) -> dict[str, str]:
    config, provenance = run.study.to_json() if run.study else {}, run.provenance
    if share:
        config, provenance = _public(config), _public(provenance)
    return {
        "name": name,
        "config": json.dumps(config, indent=2, sort_keys=True),
        "provenance": json.dumps(provenance, indent=2, sort_keys=True),
    }


def _public(value: Any) -> Any:
    """A copy without private fields and without anything that looks like a path."""
    if isinstance(value, dict):
        return {
            k: _public(v)
            for k, v in value.items()
            if not any(word == k.lower() or k.lower().endswith(f"_{word}") for word in _PRIVATE)
        }
    if isinstance(value, list):
        return [_public(item) for item in value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return "(removed)"
    return value
