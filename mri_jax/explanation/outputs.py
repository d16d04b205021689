"""The results of an explanation: tables, ``explain.json`` and the page with all its parts."""

from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.explanation import sections
from mri_jax.explanation.facts import Facts
from mri_jax.explanation.folder import Folder
from mri_jax.explanation.page import markdown_page, render
from mri_jax.explanation.sanity import RULES
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.statistics import region_summary
from mri_jax.progress import Progress
from mri_jax.showing import simulated
from mri_jax.showing.forms import markdown
from mri_jax.showing.table import from_frame


def write_outputs(
    to: Folder, facts: Facts, scans: Sequence[ExplainedScan], say: Callable[[str], None]
) -> epath.Path:
    """Write everything but the single maps; returns the page.

    Args:
      to: The folder, with what the maps left behind.
      facts: What is known of the call.
      scans: Those that were explained.
      say: Where the summary goes.
    """
    out, setting, collected, checked = to.out, to.setting, to.collected, to.checked
    to.nifti("maps/anatomy.nii.gz", np.asarray(to.anatomy.dataobj), "mean volume of the cohort")
    summary = region_summary(collected.region_table(), setting.classes, facts.seed)
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
    parts += sections.subjects(to, scans, facts.subjects)
    parts.append(sections.files_of_page())
    title = f"Explanation of {facts.variant} on {facts.cohort}"
    files.write_json(
        out / "explain.json",
        {
            **facts.to_json(),
            "rules": RULES if checked else {},
            "checks": {c.stage: [v.to_json() for v in c.verdicts] for c in checked},
            "completeness": sections.completeness(table),
        },
    )
    files.write_markdown(out / "summary.md", markdown_page(title, parts, setting.simulated))
    files.write_text(out / "summary.html", render(title, parts, setting.simulated))
    if setting.simulated:
        say(simulated.SCANS)
    for warning in facts.warnings:
        say(f"warning: {warning}")
    for shown in ([verdicts] if len(verdicts) else []) + [speed]:
        say(shown.to_string(index=False))
    return out / "summary.html"
