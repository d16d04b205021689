"""The networks of a run: source networks, tuned and adapted ones, and what is asked of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import pandas as pd

from mri_jax import adaptation
from mri_jax.adaptation import SCRATCH, SOURCE, Method, Part
from mri_jax.cohort import splits
from mri_jax.cohort.leakage import Seen
from mri_jax.models.spec import BATCH
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.cuts import Targets, of_subjects, source_scans
from mri_jax.planning.fingerprints import AnyStage, fingerprinted
from mri_jax.planning.fits import method_fit, source_fit, tuning_fit
from mri_jax.planning.plan import (
    FEATURES,
    NONE,
    STATISTICS,
    Answer,
    Entry,
    EvaluateStage,
    TrainStage,
)
from mri_jax.settings.sections import LAYER_SETS
from mri_jax.settings.study import Run, Study, Tuning, named
from mri_jax.training.loop import FitSettings

# One part of so many stops a tuning where `finetune.stopping` is ``inner``.
_STOPPING_PARTS = 5
# A fold inside an adaptation part: its number and the subjects that are trained on.
InnerFold = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Networks:
    """Lists the networks of a run.

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
        return self._fingerprinted(
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

    def _fingerprinted(self, stage: AnyStage) -> AnyStage:
        return fingerprinted(stage, self.study, self._catalogue)

    def source_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Yields source networks with what is asked of them."""
        for fold, source in enumerate(sources):
            answers = [self._held_out(source, source)]
            for cohort in self._run.targets:
                answers += self._on_target(source, cohort, self.targets.repeats(cohort))
            seen = self._features(source, source)
            yield Entry(self._run.variant, "source", 0, fold, source, tuple(answers), seen)

    def tuned_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Yields fine-tuned networks with what is asked of them."""
        for choice in self._run.tunings:
            for part in self.targets.adapting_parts:
                for source in sources:
                    made = partial(self._tuned, source, choice, part)
                    yield self._adapted_entry(choice.stage, part, source, made)

    def adapted_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Yields networks adapted by the methods of `mri_jax.adaptation`, and what they are asked.

        Methods that train from scratch have no scores inside the adaptation part: these would take
        as many trainings from scratch more.
        """
        for method in self._run.methods:
            stage = method.stage(self._run.adaptation.transductive)
            again = method.name in self._run.adaptation.resampled
            for part in (*self.targets.adapting_parts, *self.targets.resampled_parts * again):
                for source in sources:
                    made = partial(self._adapted, source, method, part)
                    inside = method.target_labels and method.start != SCRATCH
                    yield self._adapted_entry(stage, part, source, made, inside)

    def _adapted_entry(
        self,
        stage: str,
        part: Part,
        source: TrainStage,
        made: Callable[[InnerFold | None], TrainStage],
        inside: bool = True,
    ) -> Entry:
        """Returns a network that is adapted on a part, and what is asked of it.

        Args:
          stage: How, as tables name it.
          part: On what.
          source: The source network of its fold.
          made: Makes the network, or the one that learns from an inner fold alone.
          inside: Whether there are scores inside the part.
        """
        network = made(None)
        answers = [self._held_out(network, source, part.repeat)]
        for cohort in self._run.targets:
            answers += self._on_target(network, cohort, (part.repeat,), part)
        answers += self._inner_answers(part, made) if inside else ()
        seen = self._features(network, source) if part == Part() else None
        about = (self._run.variant, stage + part.suffix, part.repeat, source.fold)
        return Entry(*about, network, tuple(answers), seen)

    def _features(self, network: TrainStage, source: TrainStage) -> EvaluateStage | None:
        """Returns the features that tell how far the sites are apart, where methods adapt."""
        cohort = self.targets.tuned_on
        if not self._run.methods or cohort is None or self._run.finetune.labels:
            return None
        tested = source.validation + dict(self.targets.cuts[cohort, 0])["test"]
        return self._fingerprinted(EvaluateStage("", network, tested, FEATURES))

    def _held_out(self, network: TrainStage, source: TrainStage, repeat: int = 0) -> Answer:
        stage = self._evaluate(network, source.validation)
        return Answer(stage, self._run.source.pooled, "validation", source.validation, repeat)

    def _evaluate(self, network: TrainStage, tested: Examples) -> EvaluateStage:
        return self._fingerprinted(EvaluateStage("", network, tested))

    def _on_target(
        self,
        network: TrainStage,
        cohort: str,
        repeats: tuple[int, ...],
        part: Part | None = None,
    ) -> Iterator[Answer]:
        """Yields the scans of a cohort, cut into adaptation and test where it is tuned on.

        ``part`` is what the network is adapted on; None of a source network.
        """
        stage = self._evaluate(network, self._catalogue.examples(self.targets.scans[cohort]))
        for repeat in repeats:
            if part and cohort == self.targets.tuned_on:
                cut = self.targets.cut_for(part)
            else:
                cut = self.targets.cuts[cohort, repeat]
            for split, examples in cut:
                yield Answer(stage, cohort, split, examples, repeat)

    def _inner_answers(
        self, part: Part, network: Callable[[InnerFold | None], TrainStage]
    ) -> Iterator[Answer]:
        """Yields each scan of the adapting part, scored by a network made without its subject."""
        number = self._run.finetune.inner_folds
        if not number:
            return
        chosen = self.targets.adapting(part)
        feasible.enough(
            chosen,
            number,
            f"{named('finetune.inner_folds')}: {number}",
            self.targets.called(part),
            "lower it (0: none, and no thresholds of tuned networks), or "
            + named("finetune.parts"),
        )
        folds = splits.folds(chosen, seed=self.study.seed, n_folds=number)
        for place, fold in enumerate(folds):
            tuned = network((place, fold.train_ids))
            held_out = self._catalogue.examples(of_subjects(chosen, fold.validation_ids))
            stage = self._evaluate(tuned, held_out)
            yield Answer(stage, self._run.finetune.cohort, "inner", held_out, part.repeat)

    def _tuned(
        self,
        parent: TrainStage,
        choice: Tuning,
        part: Part,
        inner_fold: InnerFold | None = None,
    ) -> TrainStage:
        """Returns a tuning on the adapting part, or on the training subjects of an inner fold."""
        chosen, inner = self._shown_of(part, inner_fold)
        train, validation = self._stopped(chosen, part, bool(inner_fold))
        return self._fingerprinted(
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

    def _adapted(
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
            return self._tuned(source, Tuning(start, "keep"), part, inner_fold)
        return self._adapted(source, adaptation.named(start), part, inner_fold)

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
        scans = (
            len(train) - len(source.train) + self._smallest
            if method.source_labels
            else (len(train) or len(unlabelled))
        )
        return self._fingerprinted(
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
                label=self._label(method.stage(self._run.adaptation.transductive), part),
                unlabelled=unlabelled,
            )
        )

    def _with_statistics(self, network: TrainStage, method: Method, part: Part) -> TrainStage:
        """Returns a network with BatchNorm's statistics of the adapting part."""
        return self._fingerprinted(
            replace(
                network,
                kind=STATISTICS,
                fingerprint="",
                train=NONE,
                validation=NONE,
                seen=network.seen | self._shown(self.targets.adapting(part)),
                parent=network,
                label=self._label(method.stage(self._run.adaptation.transductive), part),
                unlabelled=self._unlabelled(method, part),
            )
        )

    def _unlabelled(self, method: Method, part: Part) -> Examples:
        """Returns what a method without labels is shown: the adapting part, or all of the target.

        What it sees of the test part, without labels and because the study asks for it, is not
        among the scans that may not be tested (`TrainStage.seen`).
        """
        scans, where = self.targets.adapting(part), self.targets.called(part)
        if self._run.adaptation.transductive:
            scans, where = self.targets.scans[self._run.finetune.cohort], self._run.finetune.cohort
        feasible.check_unlabelled(method, self._run.train.batch, len(scans), where)
        return self._catalogue.examples(scans).unlabelled()
