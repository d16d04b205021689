"""The networks of a search: folds inside the source, without those who are set aside.

Who is set aside is drawn before the first trial. A trial's plan is drawn up from a catalogue in
which neither they nor any target can be found.
"""

from dataclasses import dataclass, replace

from mri_jax.cohort import splits
from mri_jax.evaluation.variants import Variant
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.cuts import Targets, of_subjects, source_scans
from mri_jax.planning.fingerprints import fingerprinted
from mri_jax.planning.networks import Networks
from mri_jax.planning.plan import Answer, EvaluateStage, Plan, TrainStage
from mri_jax.planning.planner import checked
from mri_jax.planning.trainings import Trainings
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study, named


@dataclass(frozen=True)
class Parts:
    """The source of a search, parted by subject.

    Attributes:
      inner: The subjects on whom trials are trained and held out.
      aside: Those set aside.
      scans: The scans of those set aside.
    """

    inner: tuple[str, ...]
    aside: tuple[str, ...]
    scans: Examples


def parts_of(study: Study, run: Run, catalogue: Catalogue) -> Parts:
    """Returns who is set aside from a search: a stratified part of the source.

    Raises:
      UserError: A class has too few subjects.
    """
    scans, number = source_scans(run.source, study.seed, catalogue), study.search.parts
    asked = f"{named('search.parts')}: {number}"
    feasible.enough(scans, number, asked, run.source.pooled, "lower it, or add subjects")
    aside, *others = splits.fifths(scans, seed=study.seed, n=number, purpose="search")
    inner = tuple(sorted(subject for part in others for subject in part))
    return Parts(inner, aside, catalogue.examples(of_subjects(scans, aside)))


def inner_plan(study: Study, run: Run, catalogue: Catalogue, parts: Parts) -> Plan:
    """Returns the networks of a trial, asked about their own held-out folds alone.

    Raises:
      UserError: The network cannot be made, or not be trained on these scans; the field is named.
    """
    feasible.check_network(run.spec, catalogue.grid)
    alone = catalogue.of_these(parts.inner)
    inside = replace(
        run,
        source=replace(run.source, size_like=()),  # whom it leaves out is not among the parts
        targets=(),
        train=replace(run.train, folds=study.search.folds),
        tunings=(),
        adaptation=replace(run.adaptation, methods=()),
    )
    targets = Targets(inside, study.seed, alone)
    trainings = Trainings(study, targets)
    entries = list(Networks(study, targets, trainings).source_entries(trainings.sources()))
    return checked(entries, alone)


def aside_plan(
    study: Study, plan: Plan, variant: Variant, catalogue: Catalogue, parts: Parts
) -> Plan:
    """Returns the networks of a finished trial, asked about those who were set aside.

    Args:
      study: The study.
      plan: From `inner_plan`.
      variant: What tables call the networks.
      catalogue: The scans.
      parts: Who was set aside.
    """
    entries = []
    for entry in plan.entries:
        network = entry.network
        assert isinstance(network, TrainStage)
        asked = fingerprinted(EvaluateStage("", network, parts.scans), study, catalogue)
        (held_out,) = entry.answers
        answer = Answer(asked, held_out.cohort, "test", parts.scans, 0)
        entries.append(replace(entry, variant=variant, answers=(answer,)))
    return checked(entries, catalogue)
