"""The networks of a run: how source networks, tuned and adapted ones are trained."""

from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from mri_jax import adaptation
from mri_jax.adaptation import SCRATCH, SOURCE, Method, Part
from mri_jax.cohort import splits
from mri_jax.cohort.leakage import Seen
from mri_jax.models.spec import BATCH
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.cuts import Targets, of_subjects, source_scans
from mri_jax.planning.fingerprints import fingerprinted
from mri_jax.planning.fits import method_fit, source_fit, tuning_fit
from mri_jax.planning.plan import NONE, STATISTICS, TrainStage
from mri_jax.settings.runs import Run, Tuning
from mri_jax.settings.sections import LAYER_SETS
from mri_jax.settings.study import Study, named
from mri_jax.training.job import FitSettings

# One part of so many stops a tuning where `finetune.stopping` is ``inner``.
_STOPPING_PARTS = 5
# A fold inside an adaptation part: its number and the subjects that are trained on.
InnerFold = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Trainings:
    """Says what each network of a run learns from, and how.

    Attributes:
      study: The study.
      targets: Targets of the run.
    """

    study: Study
    targets: Targets

    @property
    def _run(self) -> Run:
        return self.targets.run

    @property
    def _catalogue(self) -> Catalogue:
        return self.targets.catalogue

    def sources(self) -> list[TrainStage]:
        """Returns the source network of every fold."""
        feasible.check_batch(self._run.train.batch, self._smallest, self._run.name)
        fit = source_fit(self._run, self._smallest)
        return [self._source(fold, number, fit) for number, fold in enumerate(self._folds)]

    @cached_property
    def _scans(self) -> pd.DataFrame:
        return source_scans(self._run.source, self.study.seed, self._catalogue)

    @cached_property
    def _folds(self) -> tuple[splits.Fold, ...]:
        number, where = self._run.train.folds, self._run.source.pooled
        asked = f"{named('train.folds')}: {number}"
        feasible.enough(self._scans, number, asked, where, "lower it, or add subjects")
        return splits.folds(self._scans, seed=self.study.seed, n_folds=number)

    @cached_property
    def _smallest(self) -> int:
        """Scans of the smallest fold, to which all trainings of the source are as long.

        Their networks are compared.
        """
        return min(len(of_subjects(self._scans, fold.train_ids)) for fold in self._folds)

    def _source(self, fold: splits.Fold, number: int, fit: FitSettings) -> TrainStage:
        train = self._catalogue.examples(of_subjects(self._scans, fold.train_ids))
        validation = self._catalogue.examples(of_subjects(self._scans, fold.validation_ids))
        return self._named(
            TrainStage(
                kind="source",
                fingerprint="",
                fit=fit,
                seed=self.study.seed,
                purpose=("source", number),
                train=train,
                validation=validation,
                class_weights=self._run.train.class_weights,
                seen=Seen.of(self._catalogue.triples(train.rows + validation.rows)),
                reference=train if self.study.data.histogram_reference == "training" else None,
                label=self._run.name,
            )
        )

    def _named(self, stage: TrainStage) -> TrainStage:
        return fingerprinted(stage, self.study, self._catalogue)

    def tuned(
        self,
        parent: TrainStage,
        choice: Tuning,
        part: Part,
        inner_fold: InnerFold | None = None,
    ) -> TrainStage:
        """Returns a tuning on the adapting part, or on the training subjects of an inner fold."""
        chosen, inner = self._shown_of(part, inner_fold)
        train, validation = self._stopped(chosen, part, bool(inner_fold))
        return self._named(
            TrainStage(
                kind="tune",
                fingerprint="",
                fit=tuning_fit(self._run, choice),
                seed=self.study.seed,
                purpose=("tune", *parent.purpose, *part.purpose, *inner),
                train=self._catalogue.examples(train),
                validation=self._catalogue.examples(validation),
                class_weights=self._run.train.class_weights,
                seen=parent.seen | self._shown(chosen),
                parent=parent,
                reference=parent.reference,
                label=self._label(choice.stage, part),
            )
        )

    def _shown_of(
        self, part: Part, inner_fold: InnerFold | None
    ) -> tuple[pd.DataFrame, tuple[str | int, ...]]:
        """Returns the scans of an adapting part or an inner fold, and what its purpose ends in."""
        chosen = self.targets.adapting(part)
        if inner_fold is None:
            return chosen, ()
        place, subjects = inner_fold
        return of_subjects(chosen, subjects), ("inner", place)

    def _label(self, stage: str, part: Part) -> str:
        return f"{self._run.name} {stage}{part.suffix}"

    def _shown(self, scans: pd.DataFrame) -> Seen:
        return Seen.of(self._catalogue.triples(self._catalogue.examples(scans).rows))

    def _stopped(
        self, chosen: pd.DataFrame, part: Part, inside: bool
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns what a tuning learns from and what stops it; ``inside``: it is an inner one."""
        train, validation = chosen, chosen.iloc[:0]
        if self._run.finetune.stopping == "inner":
            feasible.enough(
                chosen,
                _STOPPING_PARTS,
                f"{named('finetune.stopping')}: 'inner' makes {_STOPPING_PARTS} parts, which",
                ("an inner fold of " if inside else "") + self.targets.called(part),
                f"take 'fixed', or lower {named('finetune.parts')}",
            )
            inner = splits.fifths(
                chosen,
                seed=self.study.seed,
                n=_STOPPING_PARTS,
                purpose=f"inner-{part.repeat}{part.suffix}",
            )
            train, validation = (
                chosen[~chosen["subject_id"].isin(inner[0])],
                of_subjects(chosen, inner[0]),
            )
        return train, validation

    def adapted(
        self,
        source: TrainStage,
        method: Method,
        part: Part,
        inner_fold: InnerFold | None = None,
    ) -> TrainStage:
        """Returns the network of a method that starts from a source network, or beside it."""
        network = self._start(source, method.start, part, inner_fold)
        if method.trains:
            network = self._trained(source, network, method, part, inner_fold)
        if method.statistics and self._run.spec.norm == BATCH:
            assert network is not None
            network = self._with_statistics(network, method, part)
        assert network is not None
        return network

    def _start(
        self, source: TrainStage, start: str, part: Part, inner_fold: InnerFold | None
    ) -> TrainStage | None:
        if start in (SCRATCH, SOURCE):
            return source if start == SOURCE else None
        if start in LAYER_SETS:
            return self.tuned(source, Tuning(start, "keep"), part, inner_fold)
        return self.adapted(source, adaptation.named(start), part, inner_fold)

    def _trained(
        self,
        source: TrainStage,
        parent: TrainStage | None,
        method: Method,
        part: Part,
        inner_fold: InnerFold | None,
    ) -> TrainStage:
        """Returns a network that is trained by a method."""
        chosen, inner = self._shown_of(part, inner_fold)
        train, validation = NONE, NONE
        unlabelled, seen = NONE, parent.seen if parent else Seen.of([])
        if method.source_labels:
            train, validation = source.train, source.validation
            seen |= source.seen
        seen |= self._shown(chosen)
        if method.target_labels:
            own, stopping = chosen, chosen.iloc[:0]
            if parent:
                own, stopping = self._stopped(chosen, part, bool(inner_fold))
            train = train + self._catalogue.examples(own)
            validation = validation + self._catalogue.examples(stopping)
        else:
            unlabelled = self._unlabelled(method, part)
            seen |= self._shown(self.targets.set_aside(part))
        scans = (
            len(train) - len(source.train) + self._smallest
            if method.source_labels
            else (len(train) or len(unlabelled))
        )
        return self._named(
            TrainStage(
                kind="adapt",
                fingerprint="",
                fit=method_fit(self._run, method, scans, self._smallest),
                seed=self.study.seed,
                purpose=(method.name, *source.purpose, *part.purpose, *inner),
                train=train,
                validation=validation,
                class_weights=self._run.train.class_weights,
                seen=seen,
                parent=parent,
                reference=parent.reference if parent else source.reference and train,
                label=self._label(method.stage(self._run.adaptation.marks), part),
                unlabelled=unlabelled,
            )
        )

    def _with_statistics(self, network: TrainStage, method: Method, part: Part) -> TrainStage:
        """Returns a network with BatchNorm's statistics of the adapting part."""
        return self._named(
            replace(
                network,
                kind=STATISTICS,
                fingerprint="",
                train=NONE,
                validation=NONE,
                seen=network.seen | self._shown(self.targets.set_aside(part)),
                parent=network,
                label=self._label(method.stage(self._run.adaptation.marks), part),
                unlabelled=self._unlabelled(method, part),
            )
        )

    def _unlabelled(self, method: Method, part: Part) -> Examples:
        """Returns what a method without labels is shown."""
        scans, where = self.targets.unlabelled(part), self.targets.called(part)
        feasible.check_unlabelled(method, self._run.train.batch, len(scans), where)
        return self._catalogue.examples(scans).unlabelled()
