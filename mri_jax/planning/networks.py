"""The networks of a run, and what is asked of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mri_jax.adaptation import SCRATCH, Part
from mri_jax.cohort import splits
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.cuts import Targets, of_subjects
from mri_jax.planning.fingerprints import fingerprinted
from mri_jax.planning.plan import EVALUATE, FEATURES, Answer, Entry, EvaluateStage, TrainStage
from mri_jax.planning.trainings import InnerFold, Trainings
from mri_jax.settings.runs import Run
from mri_jax.settings.study import Study, named


@dataclass(frozen=True)
class Networks:
    """Lists the networks of a run.

    Attributes:
      study: The study.
      targets: Targets of the run.
      trainings: How its networks are trained.
    """

    study: Study
    targets: Targets
    trainings: Trainings

    @property
    def _run(self) -> Run:
        return self.targets.run

    @property
    def _catalogue(self) -> Catalogue:
        return self.targets.catalogue

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
                    made = partial(self.trainings.tuned, source, choice, part)
                    yield self._adapted_entry(choice.stage, part, source, made)

    def adapted_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Yields networks adapted by the methods of `mri_jax.adaptation`, and what they are asked.

        Methods that train from scratch have no scores inside the adaptation part: these would take
        as many trainings from scratch more.
        """
        for method in self._run.methods:
            stage = method.stage(self._run.adaptation.marks)
            again = method.name in self._run.adaptation.resampled
            for part in (*self.targets.adapting_parts, *self.targets.resampled_parts * again):
                for source in sources:
                    made = partial(self.trainings.adapted, source, method, part)
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
        """Returns the features that tell how far sites are apart, where that is asked.

        They are those of held-out source scans and of a target, of which the networks of a study
        that leaves sites out saw nothing.
        """
        if self._run.variant.left_out and network is source:
            tested = source.validation
            for scans in self.targets.scans.values():
                tested = tested + self._catalogue.examples(scans)
            return self._evaluate(network, tested, FEATURES)
        cohort = self.targets.tuned_on
        if not self._run.methods or cohort is None or self._run.finetune.labels:
            return None
        tested = source.validation + dict(self.targets.cuts[cohort, 0])["test"]
        return self._evaluate(network, tested, FEATURES)

    def _held_out(self, network: TrainStage, source: TrainStage, repeat: int = 0) -> Answer:
        stage = self._evaluate(network, source.validation)
        return Answer(stage, self._run.source.pooled, "validation", source.validation, repeat)

    def _evaluate(
        self, network: TrainStage, tested: Examples, kind: str = EVALUATE
    ) -> EvaluateStage:
        stage = EvaluateStage("", network, tested, kind)
        return fingerprinted(stage, self.study, self._catalogue)

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
