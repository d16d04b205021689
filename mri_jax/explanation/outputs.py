"""The results of an explanation: tables, ``explain.json`` and the page with all its parts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.explanation import pictures, sections
from mri_jax.explanation.check import Checked
from mri_jax.explanation.collect import Collected, Setting
from mri_jax.explanation.folder import Folder
from mri_jax.explanation.page import markdown_page, render
from mri_jax.explanation.sanity import RULES
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.progress import Progress
from mri_jax.showing import simulated
from mri_jax.showing.forms import markdown
from mri_jax.showing.table import from_frame
from mri_jax.volumes.grids import Grid


def write_outputs(
    out: epath.Path,
    facts: dict[str, Any],
    setting: Setting,
    grid: Grid,
    scans: Sequence[ExplainedScan],
    collected: Collected,
    summary: pd.DataFrame,
    checked: Sequence[Checked],
    say: Callable[[str], None],
) -> epath.Path:
    """Write everything but the single maps; returns the page.

    Args:
      out: The folder.
      facts: About the call, JSON-serialisable.
      setting: What was explained.
      grid: Of the maps.
      scans: That were explained.
      collected: What their maps left behind.
      summary: From `statistics.region_summary`.
      checked: The checks of each stage.
      say: Where the summary goes.
    """
    background = setting.background
    anatomy = pictures.anatomy_of(background.mean[..., 0], background.reach, grid)
    to = Folder(out, setting, grid, anatomy, collected, checked)
    to.nifti("maps/anatomy.nii.gz", np.asarray(anatomy.dataobj), "mean volume of the cohort")
    table = collected.scan_table()
    for name, frame in (
        ("scans", table),
        ("regions", collected.region_table()),
        ("region_summary", summary),
    ):
        origin = simulated.WORD if setting.simulated else "real"
        files.write_csv(out / f"tables/{name}.csv", frame.assign(scans_are=origin))
    view = from_frame("region_summary", "Regions", summary)
    files.write_markdown(out / "tables/region_summary.md", markdown(view, setting.simulated))
    speed = sections.cost_table(facts, table)
    verdicts = sections.verdict_table(checked)
    parts = [
        sections.about(facts, len(scans)),
        *sections.checks(to, verdicts),
        sections.cost(speed, facts),
    ]
    total = len(setting.stages) * len(setting.methods)
    with Progress(total, "method", "pictures and tables") as progress:
        for stage in setting.stages:
            for method in setting.methods:
                parts.append(sections.stage_method(to, stage, method.name, method.note, summary))
                progress.advance()
    parts += sections.comparisons(to)
    parts += sections.subjects(to, scans, facts["subjects"])
    parts.append(sections.beside())
    title = f"Explanation of {facts['variant']} on {facts['cohort']}"
    files.write_json(
        out / "explain.json",
        {
            **facts,
            "rules": RULES if checked else {},
            "checks": {c.stage: [v.to_json() for v in c.verdicts] for c in checked},
            "completeness": sections.completeness(table),
        },
    )
    files.write_markdown(out / "summary.md", markdown_page(title, parts, setting.simulated))
    files.write_text(out / "summary.html", render(title, parts, setting.simulated))
    if setting.simulated:
        say(simulated.SCANS)
    for shown in ([verdicts] if len(verdicts) else []) + [speed]:
        say(shown.to_string(index=False))
    return out / "summary.html"
