"""The networks of a run: source networks and tuned ones, and what is asked of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from mri_jax.cohort import splits
from mri_jax.cohort.leakage import Seen
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.cuts import Targets, of_subjects, source_scans
from mri_jax.planning.fingerprints import AnyStage, fingerprinted
from mri_jax.planning.fits import source_fit, tuning_fit
from mri_jax.planning.plan import Answer, Entry, EvaluateStage, TrainStage
from mri_jax.settings.study import Run, Study, Tuning, named
from mri_jax.training.loop import FitSettings

# One part of so many stops a tuning where `finetune.stopping` is ``inner``.
_STOPPING_PARTS = 5


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
        scans = source_scans(self._run.source, self.study.seed, self._catalogue)
        number = self._run.train.folds
        asked = f"{named('train.folds')}: {number}"
        feasible.enough(scans, number, asked, self._run.source.pooled, "lower it, or add subjects")
        folds = splits.folds(scans, seed=self.study.seed, n_folds=number)
        # One length for all folds, that of the smallest: their networks are compared.
        smallest = min(len(of_subjects(scans, fold.train_ids)) for fold in folds)
        feasible.check_batch(self._run.train.batch, smallest, self._run.name)
        fit = source_fit(self._run, smallest)
        return [self._source(scans, fold, number, fit) for number, fold in enumerate(folds)]

    def _source(
        self, scans: pd.DataFrame, fold: splits.Fold, number: int, fit: FitSettings
    ) -> TrainStage:
        train = self._catalogue.examples(of_subjects(scans, fold.train_ids))
        validation = self._catalogue.examples(of_subjects(scans, fold.validation_ids))
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
            yield Entry(self._run.variant, "source", 0, fold, source, tuple(answers))

    def tuned_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Yields fine-tuned networks with what is asked of them."""
        for choice in self._run.tunings:
            for repeat in range(self._run.finetune.repeats):
                for fold, source in enumerate(sources):
                    tuned = self._tuned(source, choice, repeat)
                    answers = [self._held_out(tuned, source, repeat)]
                    for cohort in self._run.targets:
                        answers += self._on_target(tuned, cohort, (repeat,))
                    answers += self._inner_answers(source, choice, repeat)
                    yield Entry(
                        self._run.variant, choice.stage, repeat, fold, tuned, tuple(answers)
                    )

    def _held_out(self, network: TrainStage, source: TrainStage, repeat: int = 0) -> Answer:
        stage = self._evaluate(network, source.validation)
        return Answer(stage, self._run.source.pooled, "validation", source.validation, repeat)

    def _evaluate(self, network: TrainStage, tested: Examples) -> EvaluateStage:
        return self._fingerprinted(EvaluateStage("", network, tested))

    def _on_target(
        self, network: TrainStage, cohort: str, repeats: tuple[int, ...]
    ) -> Iterator[Answer]:
        """Yields the scans of a cohort, cut into adaptation and test where it is tuned on."""
        stage = self._evaluate(network, self._catalogue.examples(self.targets.scans[cohort]))
        for repeat in repeats:
            for split, examples in self.targets.cuts[cohort, repeat]:
                yield Answer(stage, cohort, split, examples, repeat)

    def _inner_answers(self, source: TrainStage, choice: Tuning, repeat: int) -> Iterator[Answer]:
        """Yields each scan of the adapting part, scored by a network tuned without its subject."""
        number = self._run.finetune.inner_folds
        if not number:
            return
        chosen = self.targets.adapting(repeat)
        feasible.enough(
            chosen,
            number,
            f"{named('finetune.inner_folds')}: {number}",
            self.targets.part(repeat),
            "lower it (0: none, and no thresholds of tuned networks), or "
            + named("finetune.parts"),
        )
        folds = splits.folds(chosen, seed=self.study.seed, n_folds=number)
        for place, fold in enumerate(folds):
            tuned = self._tuned(source, choice, repeat, (place, fold.train_ids))
            held_out = self._catalogue.examples(of_subjects(chosen, fold.validation_ids))
            stage = self._evaluate(tuned, held_out)
            yield Answer(stage, self._run.finetune.cohort, "inner", held_out, repeat)

    def _tuned(
        self,
        parent: TrainStage,
        choice: Tuning,
        repeat: int,
        inner_fold: tuple[int, tuple[str, ...]] | None = None,
    ) -> TrainStage:
        """Returns a tuning on the adapting part, or on the training subjects of an inner fold."""
        chosen = self.targets.adapting(repeat)
        purpose: tuple[str | int, ...] = ("tune", *parent.purpose, repeat)
        if inner_fold:
            place, subjects = inner_fold
            chosen, purpose = of_subjects(chosen, subjects), (*purpose, "inner", place)
        train, validation = chosen, chosen.iloc[:0]
        if self._run.finetune.stopping == "inner":
            feasible.enough(
                chosen,
                _STOPPING_PARTS,
                f"{named('finetune.stopping')}: 'inner' makes {_STOPPING_PARTS} parts, which",
                ("an inner fold of " if inner_fold else "") + self.targets.part(repeat),
                f"take 'fixed', or lower {named('finetune.parts')}",
            )
            inner = splits.fifths(
                chosen, seed=self.study.seed, n=_STOPPING_PARTS, purpose=f"inner-{repeat}"
            )
            train, validation = (
                chosen[~chosen["subject_id"].isin(inner[0])],
                of_subjects(chosen, inner[0]),
            )
        shown = self._catalogue.triples(self._catalogue.examples(chosen).rows)
        return self._fingerprinted(
            TrainStage(
                kind="tune",
                fingerprint="",
                fit=tuning_fit(self._run, choice),
                seed=self.study.seed,
                purpose=purpose,
                train=self._catalogue.examples(train),
                validation=self._catalogue.examples(validation),
                class_weights=self._run.train.class_weights,
                seen=parent.seen | Seen.of(shown),
                parent=parent,
                reference=parent.reference,
                label=f"{self._run.name} {choice.stage}",
            )
        )
