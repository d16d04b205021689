"""Drawing up a plan: splits, stages and their fingerprints. Needs no volume."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mri_jax import files
from mri_jax.cohort import leakage, same_people, splits
from mri_jax.cohort.leakage import LeakageError, Seen
from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.evaluation.baselines import Baseline
from mri_jax.evaluation.variants import Variant
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.description import describe, switches
from mri_jax.planning.fits import source_fit, tuning_fit
from mri_jax.planning.plan import (
    Answer,
    BaselineStage,
    Entry,
    EvaluateStage,
    Plan,
    Stage,
    TrainStage,
)
from mri_jax.seeding import generator
from mri_jax.settings.fields import ROOT
from mri_jax.settings.sections import Source
from mri_jax.settings.study import Run, Study, Tuning, named, naming_fields_of
from mri_jax.training.loop import FitSettings
from mri_jax.training.step import NUMERICS_VERSION

# Raised by hand when baselines or evaluation would give other numbers than before.
STAGES_VERSION = 2

# One part of so many stops a tuning where `finetune.stopping` is ``inner``.
_STOPPING_PARTS = 5

AnyStage = TypeVar("AnyStage", TrainStage, EvaluateStage, BaselineStage)


def make_plan(study: Study, catalogue: Catalogue) -> Plan:
    """Draw the splits and list all stages.

    Raises:
      LeakageError: A subject or a scan would be on both sides of an evaluation.
      UserError: Something of the study cannot be done with these scans; the field is named.
    """
    entries: list[Entry] = []
    fitted: set[Source] = set()
    for run in study.runs:
        feasible.check_network(run.spec, catalogue.grid)
        planner = _Planner(study, run, catalogue)
        sources = planner.sources()
        entries += planner.source_entries(sources)
        entries += planner.tuned_entries(sources)
        unnamed = replace(run.source, name="")
        if unnamed not in fitted:
            fitted.add(unnamed)
            for name in study.baselines.wanted:
                entries += planner.baseline_entries(sources, name)
    for entry in entries:
        _check(entry, catalogue)
    plan = Plan(tuple(entries))
    feasible.check_plan(plan)
    return plan


@dataclass(frozen=True)
class _Planner:
    """Lists the entries of one run of a study."""

    study: Study
    run: Run
    catalogue: Catalogue

    def sources(self) -> list[TrainStage]:
        """The source network of every fold."""
        scans = source_examples(self.run.source, self.study.seed, self.catalogue)
        number = self.run.train.folds
        asked = f"{named('train.folds')}: {number}"
        feasible.enough(scans, number, asked, self._source_cohort, "lower it, or add subjects")
        folds = splits.folds(scans, seed=self.study.seed, n_folds=number)
        # One length for all folds, that of the smallest: their networks are compared.
        smallest = min(len(_of(scans, fold.train_ids)) for fold in folds)
        feasible.check_batch(self.run.train.batch, smallest, self.run.name)
        fit = source_fit(self.run, smallest)
        return [self._source(scans, fold, number, fit) for number, fold in enumerate(folds)]

    def _source(
        self, scans: pd.DataFrame, fold: splits.Fold, number: int, fit: FitSettings
    ) -> TrainStage:
        train = self.catalogue.examples(_of(scans, fold.train_ids))
        validation = self.catalogue.examples(_of(scans, fold.validation_ids))
        return self._named(
            TrainStage(
                kind="source",
                fingerprint="",
                fit=fit,
                seed=self.study.seed,
                purpose=("source", number),
                train=train,
                validation=validation,
                class_weights=self.run.train.class_weights,
                seen=Seen.of(self.catalogue.triples(train.rows + validation.rows)),
                reference=train if self.study.data.histogram_reference == "training" else None,
                label=self.run.name,
            )
        )

    def _named(self, stage: AnyStage) -> AnyStage:
        made_of = inputs(stage, self.study, self.catalogue)
        return replace(stage, fingerprint=files.fingerprint(made_of))

    def source_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Source networks and what is asked of them."""
        for fold, source in enumerate(sources):
            answers = [self._held_out(source, source)]
            for cohort in self.run.targets:
                answers += self._on_target(source, cohort, self._repeats(cohort))
            yield Entry(self.run.variant, "source", 0, fold, source, tuple(answers))

    def _repeats(self, cohort: str) -> tuple[int, ...]:
        """In which repeats a source network is asked about a target: all if it is tuned on."""
        return tuple(range(self.run.finetune.repeats)) if cohort == self._tuned_on else (0,)

    @property
    def _tuned_on(self) -> str | None:
        """The cohort that is tuned on; None where nothing is tuned."""
        return self.run.finetune.cohort if self.run.tunings else None

    def tuned_entries(self, sources: list[TrainStage]) -> Iterator[Entry]:
        """Fine-tuned networks and what is asked of them."""
        for choice in self.run.tunings:
            for repeat in range(self.run.finetune.repeats):
                for fold, source in enumerate(sources):
                    tuned = self._tuned(source, choice, repeat)
                    answers = [self._held_out(tuned, source, repeat)]
                    for cohort in self.run.targets:
                        answers += self._on_target(tuned, cohort, (repeat,))
                    answers += self._inner_answers(source, choice, repeat)
                    yield Entry(self.run.variant, choice.stage, repeat, fold, tuned, tuple(answers))

    def _held_out(self, network: TrainStage, source: TrainStage, repeat: int = 0) -> Answer:
        stage = self._evaluate(network, source.validation)
        return Answer(stage, self._source_cohort, "validation", source.validation, repeat)

    @property
    def _source_cohort(self) -> str:
        return "+".join(self.run.source.cohorts)

    def _evaluate(self, network: TrainStage, tested: Examples) -> EvaluateStage:
        return self._named(EvaluateStage("", network, tested))

    def _on_target(
        self, network: TrainStage, cohort: str, repeats: tuple[int, ...]
    ) -> Iterator[Answer]:
        """All scans of a cohort, cut into adaptation and test where the cohort is tuned on."""
        stage = self._evaluate(network, self.catalogue.examples(self._targets[cohort]))
        for repeat in repeats:
            for split, examples in self._cuts[cohort, repeat]:
                yield Answer(stage, cohort, split, examples, repeat)

    @cached_property
    def _targets(self) -> dict[str, pd.DataFrame]:
        """The scans of every target."""
        task = (self.run.task.positive, self.run.task.negative)
        with naming_fields_of(ROOT):
            return {
                cohort: self.catalogue.task(*task, (cohort,), one_class=cohort != self._tuned_on)
                for cohort in self.run.targets
            }

    @cached_property
    def _cuts(self) -> dict[tuple[str, int], list[tuple[str, Examples]]]:
        """(split, scans) of a target and a repeat; one cut where nothing is tuned on it."""
        cuts = {}
        repeats = range(self.run.finetune.repeats)
        for cohort, scans in self._targets.items():
            if cohort != self._tuned_on:
                for repeat in repeats:
                    cuts[cohort, repeat] = [("test", self.catalogue.examples(scans))]
                continue
            for repeat in repeats:
                cut = splits.adaptation(self._parts, repeat)
                cuts[cohort, repeat] = [
                    (split, self.catalogue.examples(_of(scans, subjects)))
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
        scans = self._targets[tuning.cohort]
        asked = f"{named('finetune.parts')}: {tuning.parts}"
        feasible.enough(scans, tuning.parts, asked, tuning.cohort, "lower it, or add subjects")
        return splits.fifths(scans, seed=self.study.seed, n=tuning.parts, purpose=tuning.cohort)

    def _adapting(self, repeat: int) -> pd.DataFrame:
        """The scans of the part that is tuned on."""
        scans = self._targets[self.run.finetune.cohort]
        return _of(scans, splits.adaptation(self._parts, repeat).adaptation_ids)

    def _part(self, repeat: int) -> str:
        """What messages call the part that is tuned on."""
        tuning = self.run.finetune
        return (
            f"part {repeat + 1} of the {tuning.parts} that {named('finetune.parts')} cuts "
            f"{tuning.cohort} into"
        )

    def _inner_answers(self, source: TrainStage, choice: Tuning, repeat: int) -> Iterator[Answer]:
        """Each scan of the adapting part, scored by a network tuned without its subject."""
        number = self.run.finetune.inner_folds
        if not number:
            return
        chosen = self._adapting(repeat)
        feasible.enough(
            chosen,
            number,
            f"{named('finetune.inner_folds')}: {number}",
            self._part(repeat),
            "lower it (0: none, and no thresholds of tuned networks), or "
            + named("finetune.parts"),
        )
        folds = splits.folds(chosen, seed=self.study.seed, n_folds=number)
        for place, fold in enumerate(folds):
            tuned = self._tuned(source, choice, repeat, (place, fold.train_ids))
            held_out = self.catalogue.examples(_of(chosen, fold.validation_ids))
            stage = self._evaluate(tuned, held_out)
            yield Answer(stage, self.run.finetune.cohort, "inner", held_out, repeat)

    def _tuned(
        self,
        parent: TrainStage,
        choice: Tuning,
        repeat: int,
        inner_fold: tuple[int, tuple[str, ...]] | None = None,
    ) -> TrainStage:
        """A tuning on the adapting part, or on the training subjects of one inner fold of it."""
        chosen = self._adapting(repeat)
        purpose: tuple[str | int, ...] = ("tune", *parent.purpose, repeat)
        if inner_fold:
            place, subjects = inner_fold
            chosen, purpose = _of(chosen, subjects), (*purpose, "inner", place)
        train, validation = chosen, chosen.iloc[:0]
        if self.run.finetune.stopping == "inner":
            feasible.enough(
                chosen,
                _STOPPING_PARTS,
                f"{named('finetune.stopping')}: 'inner' makes {_STOPPING_PARTS} parts, which",
                ("an inner fold of " if inner_fold else "") + self._part(repeat),
                f"take 'fixed', or lower {named('finetune.parts')}",
            )
            inner = splits.fifths(
                chosen, seed=self.study.seed, n=_STOPPING_PARTS, purpose=f"inner-{repeat}"
            )
            train, validation = chosen[~chosen["subject_id"].isin(inner[0])], _of(chosen, inner[0])
        shown = self.catalogue.triples(self.catalogue.examples(chosen).rows)
        return self._named(
            TrainStage(
                kind="tune",
                fingerprint="",
                fit=tuning_fit(self.run, choice),
                seed=self.study.seed,
                purpose=purpose,
                train=self.catalogue.examples(train),
                validation=self.catalogue.examples(validation),
                class_weights=self.run.train.class_weights,
                seen=parent.seen | Seen.of(shown),
                parent=parent,
                reference=parent.reference,
                label=f"{self.run.name} {choice.stage}",
            )
        )

    def baseline_entries(self, sources: list[TrainStage], name: str) -> Iterator[Entry]:
        """A plain classifier of every fold, asked what the source network is asked."""
        baseline = baselines.named(name)
        if not set(baseline.measured) <= set(self.catalogue.frame.columns):
            return
        try:
            baseline.check(self.catalogue.frame)
        except UserError as error:
            way_out = f"leave the baseline out with {named(f'baselines.{name}')}=False"
            raise UserError(f"{error}; correct it, or {way_out}") from None
        entries = []
        for source in sources:
            asked = [(self._source_cohort, "validation", source.validation, 0)]
            for cohort in self.run.targets:
                for repeat in self._repeats(cohort):
                    cuts = self._cuts[cohort, repeat]
                    asked += [(cohort, split, examples, repeat) for split, examples in cuts]
            stage = self._baseline(source, baseline, [examples for _, _, examples, _ in asked])
            if stage is None:
                return
            entries.append((stage, tuple(Answer(stage, c, s, e, r) for c, s, e, r in asked)))
        used = [covariate for stage, _ in entries for covariate in stage.covariates]
        variant = baseline.variant(used, self.run.variant.source)
        _check_name(variant)
        for fold, (stage, answers) in enumerate(entries):
            yield Entry(variant, "source", 0, fold, stage, answers)

    def _baseline(
        self, source: TrainStage, baseline: Baseline, asked: list[Examples]
    ) -> BaselineStage | None:
        """The classifier of a fold; None where no covariate may be used."""
        rows = {r: label for e in asked for r, label in zip(e.rows, e.labels, strict=True)}
        tested = Examples(tuple(sorted(rows)), tuple(rows[r] for r in sorted(rows)))
        train = source.train
        usable = baseline.usable(
            self.catalogue.frame,
            train.rows,
            train.rows + tested.rows,
            np.array(train.labels + tested.labels),
        )
        if baseline.covariates and not usable:
            return None
        return self._named(
            BaselineStage(
                name=baseline.name,
                fingerprint="",
                seed=self.study.seed,
                train=train,
                tested=tested,
                seen=Seen.of(self.catalogue.triples(source.train.rows)),
                covariates=usable,
                reference=source.reference,
            )
        )


def _check_name(variant: Variant) -> None:
    """Refuse the name of a source that would call a baseline of it as another one is called."""
    if variant.source and variant.name in baselines.LABELS:
        raise UserError(
            f"{named('source.name')}: {variant.source!r} would call {variant.family} of this "
            "source as another baseline is called; choose another name"
        )


def source_examples(source: Source, seed: int, catalogue: Catalogue) -> pd.DataFrame:
    """The source's scans (index: row), subsampled by subject where ``size_like`` asks for it."""
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


def _of(chosen: pd.DataFrame, subjects: tuple[str, ...]) -> pd.DataFrame:
    return chosen[chosen["subject_id"].isin(subjects)]


def inputs(stage: Stage, study: Study, catalogue: Catalogue) -> dict[str, Any]:
    """Returns all that determines the result of a stage, as `description` puts it in JSON types."""
    grid = catalogue.grid
    common: dict[str, Any] = {
        "kind": stage.kind,
        "grid": [list(grid.shape), grid.spacing, list(grid.origin)],
        "normalisation": describe(study.data.intensities),
        "reference": catalogue.identity(stage.reference) if stage.reference else None,
        "numerics": NUMERICS_VERSION,
        "version": STAGES_VERSION,
    }
    if not isinstance(stage, BaselineStage):
        common |= switches()
    if isinstance(stage, EvaluateStage):
        return {
            **common,
            "network": stage.network.fingerprint,
            "tested": catalogue.identity(stage.tested),
        }
    common |= {"seed": stage.seed, "train": catalogue.identity(stage.train)}
    if isinstance(stage, BaselineStage):
        common |= {"name": stage.name, "tested": catalogue.identity(stage.tested)}
        return common | {"covariates": _known(stage, catalogue)}
    return {
        **common,
        "fit": describe(stage.fit),
        "purpose": list(stage.purpose),
        "validation": catalogue.identity(stage.validation),
        "balanced": stage.class_weights == "balanced",
        "parent": stage.parent.fingerprint if stage.parent else None,
    }


def _known(stage: BaselineStage, catalogue: Catalogue) -> list[list[str]]:
    """The columns that a baseline is fitted on, with what a table says: it may be corrected."""
    if catalogue.generated:
        return [[name] for name in stage.covariates]
    return [
        [name, *map(str, baselines.values(catalogue.frame, (name,), e.rows)[:, 0])]
        for name in stage.covariates
        for e in stage.examples
    ]


def _check(entry: Entry, catalogue: Catalogue) -> None:
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
