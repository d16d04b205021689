"""Tables of what was run."""

import dataclasses

from mri_jax.reporting.overview import runs_table
from mri_jax.runs.provenance import Provenance
from tests import studies


def test_the_page_says_what_was_run(analysis):
    table = runs_table(analysis)
    shown = dict(zip(table.header, (cell.text for cell in table.rows[0]), strict=True))
    assert shown == {
        "Run": "high", "Config": "finetune_high:demo", "Task": "AD against CN", "Source": "ADNI1",
        "Targets": "ADNI2", "Seed": "0", "Device": "CPU",
    }  # fmt: skip
    study = studies.study(
        "depth", "dev", seed=7, source__cohorts=("ADNI1", "ADNI2"), targets=("AIBL",)
    )
    made = Provenance(devices=("gpu:a", "gpu:a"))
    run = dataclasses.replace(analysis.runs[0], study=study, provenance=made)
    row = runs_table(dataclasses.replace(analysis, runs=(run,))).rows[0]
    assert [cell.text for cell in row[1:]] == [
        "depth:dev", "AD against CN", "ADNI1, ADNI2", "AIBL", "7", "2 × a",
    ]  # fmt: skip
    row = runs_table(
        dataclasses.replace(analysis, runs=(dataclasses.replace(run, study=None),))
    ).rows[0]
    assert [cell.text for cell in row[1:]] == ["–"] * 5 + ["2 × a"]
    makers = [f"worker {number % 3} on b" for number in range(len(run.plan))]
    run = dataclasses.replace(run, study=None, plan=run.plan.assign(made_by=makers))
    row = runs_table(dataclasses.replace(analysis, runs=(run,))).rows[0]
    assert row[-1].text == "2 × a (3 machines or workers)"
