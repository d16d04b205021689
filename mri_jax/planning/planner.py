"""Draws up a plan: splits, stages and their fingerprints."""

from collections.abc import Sequence
from dataclasses import replace

from mri_jax.cohort import leakage, same_people
from mri_jax.cohort.leakage import LeakageError, Seen
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.classifiers import baseline_entries
from mri_jax.planning.cuts import Targets
from mri_jax.planning.networks import Networks
from mri_jax.planning.plan import Entry, EvaluateStage, Plan
from mri_jax.planning.trainings import Trainings
from mri_jax.settings.runs import Run
from mri_jax.settings.sections import Source
from mri_jax.settings.study import Study, named


def make_plan(study: Study, catalogue: Catalogue, further: tuple[Run, ...] = ()) -> Plan:
    """Returns all stages of a study.

    Args:
      study: The study.
      catalogue: The scans.
      further: Networks beside those that the study names.

    Raises:
      LeakageError: A subject or a scan would be on both sides of an evaluation.
      UserError: Something of the study cannot be done with these scans; the field is named.
    """
    entries: list[Entry] = []
    fitted: set[Source] = set()
    for run in (*study.runs, *further):
        feasible.check_network(run.spec, catalogue.grid)
        targets = Targets(run, study.seed, catalogue)
        trainings = Trainings(study, targets)
        networks = Networks(study, targets, trainings)
        sources = trainings.sources()
        entries += networks.source_entries(sources)
        entries += networks.tuned_entries(sources)
        entries += networks.adapted_entries(sources)
        unnamed = replace(run.source, name="")
        if unnamed not in fitted:
            fitted.add(unnamed)
            plain = [
                entry
                for name in study.baselines.wanted
                for entry in baseline_entries(name, sources, study, targets)
            ]
            feasible.check_harmonised(run.harmonises, plain)
            entries += plain
    return checked(entries, catalogue)


def checked(entries: Sequence[Entry], catalogue: Catalogue) -> Plan:
    """Returns the plan of some entries.

    Raises:
      LeakageError: A subject or a scan would be on both sides of an evaluation.
      UserError: A training has fewer scans than a batch, a baseline too few of a class, or two
        entries have one name.
    """
    for entry in entries:
        _check_disjoint(entry, catalogue)
    plan = Plan(tuple(entries))
    feasible.check_plan(plan)
    return plan


def _check_disjoint(entry: Entry, catalogue: Catalogue) -> None:
    for answer in entry.answers:
        if answer.split not in ("test", "inner"):
            continue
        tested = Seen.of(catalogue.triples(answer.examples.rows))
        context = f"{entry.run} {entry.stage} fold {entry.fold} tested on {answer.cohort}"
        asked = answer.stage.network if isinstance(answer.stage, EvaluateStage) else entry.network
        try:
            leakage.check_disjoint(asked.seen, tested, context)
        except LeakageError as error:
            raise LeakageError(
                f"{error}; remove them, or let --{named('data.repeated')}=remove keep each person "
                "in the first cohort of the study only; where two cohorts number different people "
                f"alike, say so in {same_people.NAME} beside the table: a line "
                "cohorts,COHORT,COHORT,REASON"
            ) from None
