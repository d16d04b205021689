"""The map of a report that holds several tables: what was compared, and the paper beside it."""

from dataclasses import dataclass

import pandas as pd

from mri_jax.evaluation.families import SOURCE
from mri_jax.evaluation.metrics import METRICS
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs.labels import of_run, titled
from mri_jax.showing.numbers import mean_sd
from mri_jax.showing.table import Cell, Table, text


@dataclass(frozen=True)
class Compared:
    """One question of a report.

    Attributes:
      key: The key of its table.
      title: What is compared.
      networks: The networks, whatever their stage.
      sources: What they were trained on.
      tuned: The cohort that they were fine-tuned on; empty where none was.
      targets: The cohorts that they were tested on, with their subjects.
      runs: The results folders that hold them.
    """

    key: str
    title: str
    networks: str
    sources: str
    tuned: str
    targets: str
    runs: str


def compared(analysis: Analysis) -> list[Compared]:
    """Returns what each table compares."""
    return [_of_section(analysis, section) for section in analysis.sections]


def _of_section(analysis: Analysis, section: FamilyAnalysis) -> Compared:
    networks = section.family.networks
    wanted, names = {m.run for m in networks}, []
    sources: dict[str, None] = {}
    tuned: dict[str, None] = {}
    for name, run in zip(analysis.names, analysis.runs, strict=True):
        rows = run.predictions[run.predictions["run"].isin(wanted)]
        if len(rows):
            names.append(name)
        shown = rows["split"].eq("adaptation") & rows["stage"].isin({m.stage for m in networks})
        tuned |= dict.fromkeys(rows.loc[shown & rows["stage"].ne(SOURCE), "cohort"])
        for asked in run.study.runs if run.study else ():
            if asked.name not in wanted:
                continue
            source = asked.source
            if section.left_out is not None:
                sources["all sites but the one left out"] = None
                continue
            of = f"{source.name}: {source.positive} against {source.negative} of "
            sources[(of if source.name else "") + source.pooled] = None
    tested = [c for c in section.cohorts if section.tested(c)]
    return Compared(
        key=section.family.key,
        title=section.title,
        networks="; ".join(dict.fromkeys(of_run(m.wherever) for m in networks)),
        sources="; ".join(sources),
        tuned=", ".join(tuned),
        targets="; ".join(f"{cohort} ({section.subjects(cohort)})" for cohort in tested),
        runs=", ".join(names),
    )


def published_table(analysis: Analysis, published: pd.DataFrame | None) -> Table | None:
    """Returns ours beside each score that a paper printed of the same method and target."""
    if published is None:
        return None
    rows, data = [], []
    for section in analysis.sections:
        key = ["cohort", "method", "metric"]
        ours = section.summary[section.summary["split"].eq("test")].set_index(key)
        theirs = published[published["family"].eq(section.family.key)]
        for row in theirs[theirs["metric"].isin(METRICS)].to_dict("records"):
            place = (row["cohort"], row["run"], row["metric"])
            if place not in ours.index:
                continue
            found = ours.loc[place]
            printed = mean_sd(row["mean"] / 100, row["sd"] / 100)
            cells = (Cell(mean_sd(found["mean"], found["sd"]), float(found["mean"])),
                     Cell(printed, row["mean"] / 100))  # fmt: skip
            label = titled(section.label(row["run"]))
            named = map(text, (label, row["cohort"], row["metric"].upper()))
            rows.append((*named, *cells, text(row["source"])))
            data.append({**row, "label": label, "ours": found["mean"], "ours_sd": found["sd"]})
    ours_are = "SIMULATED scans" if analysis.simulated else "this report"
    header = ("Method", "Test cohort", "Score", f"Ours ({ours_are})", "As published", "Place")
    note = "Mean ± SD over the networks, percent. The published values are of real scans."
    found = Table("published", "Beside the paper", header, tuple(rows), note, pd.DataFrame(data))
    return found if rows else None
