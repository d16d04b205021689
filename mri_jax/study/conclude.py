"""The results of a finished plan: written, and said in a few tables."""

from collections.abc import Callable

import pandas as pd
from etils import epath

from mri_jax.planning.plan import Plan
from mri_jax.runs import faults
from mri_jax.settings.study import Study
from mri_jax.study import first_layer, history, outputs, tables, verdicts
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders


def write_results(
    study: Study,
    workdir: epath.Path,
    plan: Plan,
    volumes: Volumes,
    folders: StageFolders,
) -> None:
    """Writes the results of a finished plan and prints its tables and remarks."""
    catalogue, say = volumes.catalogue, folders.say
    predictions = outputs.predictions_of(plan, catalogue, folders)
    remarks = verdicts.remarks(plan, folders, predictions)
    rows = outputs.write_plan(workdir, plan, folders, remarks)
    history.write_history(workdir, plan, folders)
    first_layer.write_first_layer(workdir, plan, volumes, folders)
    outputs.write_scores(workdir, predictions)
    outputs.write_features(workdir, plan, catalogue, folders)
    wrong = faults.of_plan(pd.DataFrame(rows))
    found = tables.comparisons(predictions, pd.DataFrame(rows), _classes(study))
    tables.write(workdir, found, catalogue.simulated)
    for table in found:
        say(f"\n{tables.shown(table, catalogue.simulated)}")
    if len(wrong):
        say("\n" + "\n".join(faults.sentences(wrong)))
    effects = tables.effects(predictions)
    if effects:
        say("\n" + "\n".join(effects))
    if study.smoke:
        say("\nPreset smoke: a few subjects and epochs; these scores mean nothing.")


def _classes(study: Study) -> tuple[str, str]:
    """Returns the names of label 0 and 1, where the networks of a study share them."""
    asked = {(run.task.negative, run.task.positive) for run in study.runs}
    return asked.pop() if len(asked) == 1 else ("negative", "positive")


def write_report(workdir: epath.Path, say: Callable[[str], None]) -> None:
    """Writes figures, tables and ``report.html``, and says what was found."""
    # Its packages take seconds to import, and a study that is refused needs none of them.
    from mri_jax.reporting import report

    written = report.write_report([str(workdir)])
    say("\n" + "\n".join(written.words))
    say(f"\nreport:  {written.page}")
