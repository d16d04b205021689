"""Runs whose files hold other entries than a synthetic run's own."""

import synthetic_run

from mri_jax import files
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.cautions import cautions
from mri_jax.reporting.methods import methods_paragraphs
from mri_jax.runs import results
from mri_jax.settings.study import merged


def rewritten(folder, changes):
    """Change fields of a run's config."""
    path = folder / results.CONFIG
    files.write_json(path, merged(files.read_json(path), changes))


def recorded(tmp_path, provenance, config=None, plan=None):
    """The methods and cautions of a run with these entries in its files."""
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(tmp_path / "run", simulated=False, cohorts=cohorts)
    path = folder / results.PROVENANCE
    files.write_json(path, files.read_json(path) | provenance)
    rewritten(folder, config or {})
    if plan:
        stages = files.read_json(folder / results.PLAN)["stages"]
        rows = [row | plan if row["stage"] == "source" else row for row in stages]
        files.write_json(folder / results.PLAN, {"stages": rows})
    found = analyse(load_runs([str(folder)]))
    return " ".join(methods_paragraphs(found)), " ".join(cautions(found))
