"""The scans of a run: those of its source, and those of its targets, cut into parts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mri_jax.cohort import splits
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.seeding import generator
from mri_jax.settings.fields import ROOT
from mri_jax.settings.sections import Source
from mri_jax.settings.study import Run, named, naming_fields_of


def of_subjects(scans: pd.DataFrame, subjects: tuple[str, ...]) -> pd.DataFrame:
    """Returns the scans of some subjects."""
    return scans[scans["subject_id"].isin(subjects)]


def source_scans(source: Source, seed: int, catalogue: Catalogue) -> pd.DataFrame:
    """Returns the source's scans (index: row), subsampled by subject where ``size_like`` asks."""
    with naming_fields_of(f"{named('source')}, {ROOT}"):
        chosen = catalogue.task(source.positive, source.negative, source.cohorts)
    if not source.size_like:
        return chosen
    with naming_fields_of(f"{named('source.size_like')}, {ROOT}"):
        like = catalogue.task(source.positive, source.negative, source.size_like)
    kept: list[str] = []
    for label in (0, 1):
        wanted = like.loc[like["label"] == label, "subject_id"].nunique()
        subjects = np.array(sorted(set(chosen.loc[chosen["label"] == label, "subject_id"])))
        order = generator(seed, "subsample", label).permutation(len(subjects))
        kept += subjects[order[:wanted]].tolist()
    return chosen[chosen["subject_id"].isin(kept)]


@dataclass(frozen=True)
class Targets:
    """The test cohorts of a run, and the parts of the one that is tuned on.

    Attributes:
      run: The run.
      seed: Seed of the splits.
      catalogue: The scans.
    """

    run: Run
    seed: int
    catalogue: Catalogue

    def repeats(self, cohort: str) -> tuple[int, ...]:
        """Returns the repeats in which a source network is asked about a target."""
        return tuple(range(self.run.finetune.repeats)) if cohort == self.tuned_on else (0,)

    @property
    def tuned_on(self) -> str | None:
        """The cohort that is tuned on; None where nothing is tuned."""
        return self.run.finetune.cohort if self.run.adapts else None

    @cached_property
    def scans(self) -> dict[str, pd.DataFrame]:
        """The scans of every target."""
        task = (self.run.task.positive, self.run.task.negative)
        with naming_fields_of(ROOT):
            return {
                cohort: self.catalogue.task(*task, (cohort,), one_class=cohort != self.tuned_on)
                for cohort in self.run.targets
            }

    @cached_property
    def cuts(self) -> dict[tuple[str, int], list[tuple[str, Examples]]]:
        """(split, scans) of a target and a repeat; one cut where nothing is tuned on it."""
        cuts = {}
        repeats = range(self.run.finetune.repeats)
        for cohort, scans in self.scans.items():
            if cohort != self.tuned_on:
                for repeat in repeats:
                    cuts[cohort, repeat] = [("test", self.catalogue.examples(scans))]
                continue
            for repeat in repeats:
                cut = splits.adaptation(self._parts, repeat)
                cuts[cohort, repeat] = [
                    (split, self.catalogue.examples(of_subjects(scans, subjects)))
                    for split, subjects in (
                        ("adaptation", cut.adaptation_ids),
                        ("test", cut.test_ids),
                    )
                ]
        return cuts

    @cached_property
    def _parts(self) -> tuple[tuple[str, ...], ...]:
        """The disjoint stratified parts of the cohort that is tuned on."""
        tuning = self.run.finetune
        scans = self.scans[tuning.cohort]
        asked = f"{named('finetune.parts')}: {tuning.parts}"
        feasible.enough(scans, tuning.parts, asked, tuning.cohort, "lower it, or add subjects")
        return splits.fifths(scans, seed=self.seed, n=tuning.parts, purpose=tuning.cohort)

    def adapting(self, repeat: int) -> pd.DataFrame:
        """Returns the scans of the part that is tuned on."""
        scans = self.scans[self.run.finetune.cohort]
        return of_subjects(scans, splits.adaptation(self._parts, repeat).adaptation_ids)

    def part(self, repeat: int) -> str:
        """Returns what messages call the part that is tuned on."""
        tuning = self.run.finetune
        return (
            f"part {repeat + 1} of the {tuning.parts} that {named('finetune.parts')} cuts "
            f"{tuning.cohort} into"
        )
