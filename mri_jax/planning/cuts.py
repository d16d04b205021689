"""The scans of a run: those of its source, and those of its targets, cut into parts."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mri_jax.adaptation import Part
from mri_jax.cohort import splits
from mri_jax.errors import UserError
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.seeding import generator
from mri_jax.settings.fields import ROOT, naming_fields_of
from mri_jax.settings.runs import Run
from mri_jax.settings.sections import Source
from mri_jax.settings.study import named


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
        if cohort != self.tuned_on or self.run.finetune.labels:
            return (0,)
        return tuple(range(self.run.finetune.repeats))

    @property
    def adapting_parts(self) -> tuple[Part, ...]:
        """What networks adapt on, each in turn."""
        repeats = range(self.run.finetune.repeats)
        if not self.run.finetune.labels:
            return tuple(map(Part, repeats))
        return tuple(Part(r, labels=float(p)) for p in self.run.finetune.labels for r in repeats)

    @property
    def resampled_parts(self) -> tuple[Part, ...]:
        """Parts drawn anew to shares of patients."""
        return tuple(
            replace(part, patients=share)
            for part in self.adapting_parts
            for share in self.run.adaptation.shares
        )

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
                cut = self._cut(repeat)
                cuts[cohort, repeat] = [
                    (split, self.catalogue.examples(of_subjects(scans, subjects)))
                    for split, subjects in (
                        ("adaptation", cut.adaptation_ids),
                        ("test", cut.test_ids),
                    )
                ]
        return cuts

    def _cut(self, repeat: int) -> splits.Adaptation:
        """Who may adapt and who tests; with shares of labels the last part tests in any repeat."""
        if not self.run.finetune.labels:
            return splits.adaptation(self._parts, repeat)
        tested = splits.adaptation(self._parts, len(self._parts) - 1)
        return splits.Adaptation(tested.test_ids, tested.adaptation_ids)

    def cut_for(self, part: Part) -> list[tuple[str, Examples]]:
        """Returns the (split, scans) of the cohort that is tuned on, for what adapts on a part."""
        repeat = 0 if self.run.finetune.labels else part.repeat
        tested = dict(self.cuts[self.run.finetune.cohort, repeat])["test"]
        whole = replace(part, patients=None)
        return [("adaptation", self.catalogue.examples(self.adapting(whole))), ("test", tested)]

    @cached_property
    def _parts(self) -> tuple[tuple[str, ...], ...]:
        """The disjoint stratified parts of the cohort that is tuned on."""
        tuning = self.run.finetune
        scans = self.scans[tuning.cohort]
        asked = f"{named('finetune.parts')}: {tuning.parts}"
        feasible.enough(scans, tuning.parts, asked, tuning.cohort, "lower it, or add subjects")
        return splits.fifths(scans, seed=self.seed, n=tuning.parts, purpose=tuning.cohort)

    def adapting(self, part: Part) -> pd.DataFrame:
        """Returns the scans of the part that is tuned on.

        Raises:
          UserError: It has too few of a class to be drawn to shares of patients.
        """
        cohort = self.run.finetune.cohort
        scans = self.scans[cohort]
        subjects = self._cut(part.repeat).adaptation_ids
        purpose = "-".join([cohort, str(part.repeat)])
        if part.labels is not None:
            subjects = splits.labelled_share(
                scans, subjects, part.labels, seed=self.seed, purpose=purpose
            )
        chosen = of_subjects(scans, subjects)
        if part.patients is None:
            return chosen
        shares = self.run.adaptation.shares
        drawn = splits.resampled(chosen, shares, part.patients, seed=self.seed, purpose=purpose)
        return of_subjects(chosen, drawn)

    def set_aside(self, part: Part) -> pd.DataFrame:
        """Returns the scans that methods without labels see and that may test no network of theirs.

        The adapting part, and what has no diagnosis where `Adaptation.undiagnosed` names it.
        """
        return pd.concat([self.adapting(part), self._undiagnosed])

    def unlabelled(self, part: Part) -> pd.DataFrame:
        """Returns the scans that methods without labels see: with the test part where asked for."""
        if not self.run.adaptation.transductive:
            return self.set_aside(part)
        return pd.concat([self.scans[self.run.finetune.cohort], self._undiagnosed])

    @cached_property
    def _undiagnosed(self) -> pd.DataFrame:
        """The adapted cohort's scans without a diagnosis, of people who have none there at all."""
        cohort, name = self.run.finetune.cohort, self.run.adaptation.undiagnosed
        diagnosed = self.scans[cohort]
        if not name:
            return diagnosed.iloc[:0]
        scans = self.catalogue.of_diagnosis(name, cohort)
        scans = scans[~scans["subject_id"].isin(diagnosed["subject_id"])]
        if scans.empty:
            raise UserError(
                f"{named('adaptation.undiagnosed')}: {name!r} is the diagnosis of no scan of "
                f"{cohort} whose subject has no other there; leave it empty, or correct it"
            )
        return scans

    def called(self, part: Part) -> str:
        """Returns what messages call the part that is tuned on."""
        tuning = self.run.finetune
        if part.labels is not None:
            return f"{part.labels:g}% of {tuning.cohort} ({named('finetune.labels')})"
        drawn = "" if part.patients is None else f", drawn to {part.patients}% patients,"
        return (
            f"part {part.repeat + 1} of the {tuning.parts} that {named('finetune.parts')} cuts "
            f"{tuning.cohort} into{drawn}"
        )
