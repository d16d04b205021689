"""What each way of adapting took, beside the training of a source network."""

import pandas as pd

from mri_jax.evaluation.families import SOURCE
from mri_jax.reporting.analysis import Analysis, FamilyAnalysis
from mri_jax.runs.labels import titled
from mri_jax.showing.numbers import DASH, gibibytes
from mri_jax.showing.table import Cell, Table, text

_NEEDED = {"run", "stage", "seconds", "trainable_parameters"}


def cost_table(section: FamilyAnalysis, analysis: Analysis) -> Table:
    """Returns parameters, seconds and memory of the networks of a section; empty where unknown.

    Only of tables of adaptation: elsewhere every row costs what its size says.
    """
    rows, data = [], []
    plan = analysis.plan
    known = section.family.key.startswith("adaptation") and set(plan.columns) >= _NEEDED
    for method in section.family.networks if known else ():
        own = plan[(plan["run"] == method.run) & (plan["stage"] == method.stage)]
        source = plan[(plan["run"] == method.run) & (plan["stage"] == SOURCE)]
        seconds, beside = own["seconds"].mean(), source["seconds"].mean()
        if pd.isna(seconds) or pd.isna(beside):
            continue
        memory = own["process_bytes"].max() if "process_bytes" in own else float("nan")
        times, trained = seconds / beside, own["trainable_parameters"].max()
        rows.append(
            (
                text(titled(section.label(method.name))),
                Cell(f"{trained:,.0f}", float(trained)),
                Cell(f"{seconds:.1f}", float(seconds)),
                Cell(f"{times:.2f}", float(times)),
                Cell(DASH if pd.isna(memory) else gibibytes(int(memory)), float(memory)),
            )
        )
        data.append(
            {
                "method": method.name,
                "label": section.label(method.name),
                "trainable_parameters": int(trained),
                "seconds": float(seconds),
                "times_source": float(times),
                "process_bytes": float(memory),
            }
        )
    note = (
        "Means over the networks. Seconds are those after the source network was trained, which "
        "networks from scratch do not need; memory is the most that the process had, its volumes "
        "included."
    )
    header = ("Method", "Parameters trained", "Seconds a network", "Times the source's", "Memory")
    return Table(
        f"{section.family.key}-cost", "Cost", header, tuple(rows), note, pd.DataFrame(data),
        lead="What each way of adapting took, beside the training of a source network.",
    )  # fmt: skip
