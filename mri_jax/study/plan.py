"""A study becomes a list of stages, each named by a fingerprint of all that determines it.

Two entries of a plan (rows of tables) may share a stage: CNN-AD1 of the related-task study is CNN-5
of the baseline study, and is trained once.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mri_jax import files
from mri_jax.cohort import leakage, splits
from mri_jax.cohort.leakage import LeakageError, Seen
from mri_jax.evaluation import baselines
from mri_jax.seeding import generator
from mri_jax.study import covariates
from mri_jax.study.data import Catalogue, Examples
from mri_jax.study.settings import Finetuning, Run, Source, Study, Tuning
from mri_jax.training.freezing import rules_for
from mri_jax.training.loop import FitSettings, with_step
from mri_jax.training.step import NUMERICS_VERSION
from mri_jax.training.stopping import StoppingSettings

# Raised by hand when baselines or evaluation would give other numbers than before.
STAGES_VERSION = 1


@dataclass(frozen=True)
class TrainStage:
    """A network to train: from scratch, or on from its parent.

    Attributes:
      kind: ``source`` or ``tune``.
      fingerprint: Of all that determines the network.
      fit: How it is trained.
      seed: Of its random streams.
      purpose: Names them.
      train: What it learns from.
      validation: What stops it; empty where nothing does.
      balanced: Whether classes weigh alike in the loss.
      seen: Subjects and scans that it or an ancestor was shown, early stopping included.
      parent: The network it starts from.
    """

    kind: str
    fingerprint: str
    fit: FitSettings
    seed: int
    purpose: tuple[str | int, ...]
    train: Examples
    validation: Examples
    balanced: bool
    seen: Seen
    parent: "TrainStage | None" = None

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return self.train, self.validation


@dataclass(frozen=True)
class EvaluateStage:
    """Logits of a network for a set of scans.

    Attributes:
      fingerprint: Of the network and the scans.
      network: The network.
      tested: The scans.
    """

    fingerprint: str
    network: TrainStage
    tested: Examples
    kind: str = "evaluate"

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return (self.tested,)


@dataclass(frozen=True)
class BaselineStage:
    """A plain classifier: fitted on a fold's training scans, and its logits for sets of scans.

    Attributes:
      name: ``age_sex``, ``hippocampus`` or ``voxels``.
      fingerprint: Of all that determines the logits.
      seed: Of its inner folds.
      train: What it learns from.
      tested: Scans it is asked about.
      seen: As of a network.
      covariates: Columns that it is fitted on; empty for ``voxels``.
    """

    name: str
    fingerprint: str
    seed: int
    train: Examples
    tested: Examples
    seen: Seen
    covariates: tuple[str, ...] = ()
    kind: str = "baseline"

    @property
    def examples(self) -> tuple[Examples, ...]:
        """Everything it reads."""
        return self.train, self.tested


Stage = TrainStage | EvaluateStage | BaselineStage


@dataclass(frozen=True)
class Answer:
    """Where a part of an entry's predictions comes from.

    Attributes:
      stage: Whose logits.
      cohort: The cohort column.
      split: The split column.
      examples: The scans, with the labels of the task.
      repeats: Values of the repeat column.
    """

    stage: EvaluateStage | BaselineStage
    cohort: str
    split: str
    examples: Examples
    repeat: int


@dataclass(frozen=True)
class Entry:
    """One network (or baseline) as a study names it.

    Attributes:
      run: The variant.
      stage: ``source`` or ``tuned-LAYERS``.
      repeat: Which fine-tuning part; 0 for a source.
      fold: The source fold held out.
      network: The stage that makes it.
      answers: What is asked of it.
    """

    run: str
    stage: str
    repeat: int
    fold: int
    network: TrainStage | BaselineStage
    answers: tuple[Answer, ...] = field(default=())


@dataclass(frozen=True)
class Plan:
    """All entries of a study."""

    entries: tuple[Entry, ...]

    def stages(self) -> list[Stage]:
        """Every stage once, parents before children."""
        found: dict[str, Stage] = {}
        for stage in self._all():
            found.setdefault(stage.fingerprint, stage)
        return list(found.values())

    def _all(self) -> Iterator[Stage]:
        networks = [entry.network for entry in self.entries]
        yield from (n.parent for n in networks if isinstance(n, TrainStage) and n.parent)
        yield from networks
        for entry in self.entries:
            for answer in entry.answers:
                if isinstance(answer.stage, EvaluateStage):
                    yield answer.stage.network
        for entry in self.entries:
            yield from (answer.stage for answer in entry.answers)

    def rows(self) -> list[int]:
        """Every scan that is used."""
        return sorted({r for s in self.stages() for e in s.examples for r in e.rows})


def make_plan(study: Study, catalogue: Catalogue) -> Plan:
    """Draw the splits and list all stages.

    Raises:
      LeakageError: A subject or a scan would be on both sides of an evaluation.
      UserError: A class is absent or smaller than the number of folds.
    """
    entries: list[Entry] = []
    fitted: set[Source] = set()
    for run in study.runs:
        source = source_examples(run.source, study.seed, catalogue)
        folds = splits.folds(source, seed=study.seed, n_folds=run.folds)
        stages = [
            _source_stage(study, run, catalogue, source, fold, number)
            for number, fold in enumerate(folds)
        ]
        entries += _network_entries(study, run, catalogue, stages)
        if run.source not in fitted:
            fitted.add(run.source)
            for name in study.baselines:
                entries += _baseline_entries(study, run, catalogue, stages, name)
    for entry in entries:
        _check(entry, catalogue)
    return Plan(tuple(entries))


def source_examples(source: Source, seed: int, catalogue: Catalogue) -> pd.DataFrame:
    """The source's scans (index: row), subsampled by subject where ``size_like`` asks for it."""
    chosen = catalogue.task(source.positive, source.negative, source.cohorts)
    if not source.size_like:
        return chosen
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


def _source_stage(
    study: Study,
    run: Run,
    catalogue: Catalogue,
    source: pd.DataFrame,
    fold: splits.Fold,
    number: int,
) -> TrainStage:
    train = catalogue.examples(_of(source, fold.train_ids))
    validation = catalogue.examples(_of(source, fold.validation_ids))
    stage = TrainStage(
        kind="source",
        fingerprint="",
        fit=run.train,
        seed=study.seed,
        purpose=("source", number),
        train=train,
        validation=validation,
        balanced=run.balanced,
        seen=Seen.of(catalogue.triples(train.rows + validation.rows)),
    )
    return _named(stage, catalogue)


def _named(stage: TrainStage, catalogue: Catalogue) -> TrainStage:
    return replace(stage, fingerprint=files.fingerprint(inputs(stage, catalogue)))


def inputs(stage: Stage, catalogue: Catalogue) -> dict[str, Any]:
    """All that determines the result of a stage, JSON-serialisable."""
    store = catalogue.reader.store.info
    common = {
        "kind": stage.kind,
        "grid": [list(store.grid.shape), store.grid.spacing, list(store.grid.origin)],
        "normalisation": asdict(catalogue.reader.how),
        "numerics": NUMERICS_VERSION,
        "version": STAGES_VERSION,
    }
    if isinstance(stage, EvaluateStage):
        return {
            **common,
            "network": stage.network.fingerprint,
            "tested": catalogue.identity(stage.tested),
        }
    common |= {"seed": stage.seed, "train": catalogue.identity(stage.train)}
    if isinstance(stage, BaselineStage):
        tested = catalogue.identity(stage.tested)
        known = [
            [name, *map(str, covariates.values(catalogue.frame, (name,), e.rows)[:, 0])]
            for name in stage.covariates
            for e in stage.examples
        ]
        return {**common, "name": stage.name, "tested": tested, "covariates": known}
    return {
        **common,
        "fit": asdict(stage.fit),
        "purpose": list(stage.purpose),
        "validation": catalogue.identity(stage.validation),
        "balanced": stage.balanced,
        "parent": stage.parent.fingerprint if stage.parent else None,
    }


def _network_entries(
    study: Study, run: Run, catalogue: Catalogue, stages: list[TrainStage]
) -> Iterator[Entry]:
    for fold, stage in enumerate(stages):
        answers = [_held_out(stage, stage, run, catalogue)]
        for cohort in run.targets:
            answers += _on_target(study, run, catalogue, stage, cohort, source=True)
        yield Entry(run.name, "source", 0, fold, stage, tuple(answers))
    tuning = run.finetuning
    for choice in tuning.tunings:
        for repeat in range(tuning.repeats):
            for fold, stage in enumerate(stages):
                tuned = _tune_stage(study, run, catalogue, stage, choice, repeat)
                answers = [_held_out(tuned, stage, run, catalogue, repeat)]
                for cohort in run.targets:
                    answers += _on_target(study, run, catalogue, tuned, cohort, repeat=repeat)
                answers += _inner_answers(study, run, catalogue, stage, choice, repeat)
                yield Entry(run.name, choice.stage, repeat, fold, tuned, tuple(answers))


def _held_out(
    network: TrainStage, source: TrainStage, run: Run, catalogue: Catalogue, repeat: int = 0
) -> Answer:
    stage = _evaluate(network, source.validation, catalogue)
    cohort = "+".join(run.source.cohorts)
    return Answer(stage, cohort, "validation", source.validation, repeat)


def _evaluate(network: TrainStage, tested: Examples, catalogue: Catalogue) -> EvaluateStage:
    stage = EvaluateStage("", network, tested)
    return replace(stage, fingerprint=files.fingerprint(inputs(stage, catalogue)))


def adaptation_parts(
    study: Study, run: Run, catalogue: Catalogue
) -> tuple[pd.DataFrame, tuple[tuple[str, ...], ...]]:
    """The scans of the cohort that is fine-tuned on, and its disjoint stratified parts."""
    tuning = run.finetuning
    target = catalogue.task(run.positive, run.negative, (tuning.cohort,))
    parts = splits.fifths(target, seed=study.seed, n=tuning.parts, purpose=tuning.cohort)
    return target, parts


def _on_target(
    study: Study,
    run: Run,
    catalogue: Catalogue,
    network: TrainStage,
    cohort: str,
    source: bool = False,
    repeat: int = 0,
) -> list[Answer]:
    """All scans of a cohort, cut into adaptation and test where the cohort is fine-tuned on."""
    tuning = run.finetuning
    everyone = catalogue.task(run.positive, run.negative, (cohort,))
    stage = _evaluate(network, catalogue.examples(everyone), catalogue)
    if not tuning.tunings or cohort != tuning.cohort:
        return [Answer(stage, cohort, "test", stage.tested, repeat)]
    target, parts = adaptation_parts(study, run, catalogue)
    answers = []
    for number in range(tuning.repeats) if source else (repeat,):
        cut = splits.adaptation(parts, number)
        for split, subjects in (("adaptation", cut.adaptation_ids), ("test", cut.test_ids)):
            examples = catalogue.examples(_of(target, subjects))
            answers.append(Answer(stage, cohort, split, examples, number))
    return answers


def _inner_answers(
    study: Study, run: Run, catalogue: Catalogue, parent: TrainStage, choice: Tuning, repeat: int
) -> Iterator[Answer]:
    """Each scan of the adapting part, scored by a network that was tuned without its subject."""
    number = run.finetuning.inner_folds
    if not number:
        return
    target, parts = adaptation_parts(study, run, catalogue)
    chosen = _of(target, splits.adaptation(parts, repeat).adaptation_ids)
    inner = splits.folds(chosen, seed=study.seed, n_folds=number)
    for place, fold in enumerate(inner):
        tuned = _tune_stage(study, run, catalogue, parent, choice, repeat, (place, fold.train_ids))
        held_out = catalogue.examples(_of(chosen, fold.validation_ids))
        stage = _evaluate(tuned, held_out, catalogue)
        yield Answer(stage, run.finetuning.cohort, "inner", held_out, repeat)


def _tune_stage(
    study: Study,
    run: Run,
    catalogue: Catalogue,
    parent: TrainStage,
    choice: Tuning,
    repeat: int,
    inner_fold: tuple[int, tuple[str, ...]] | None = None,
) -> TrainStage:
    """A tuning on the adapting part, or on the training subjects of one inner fold of it."""
    target, parts = adaptation_parts(study, run, catalogue)
    chosen = _of(target, splits.adaptation(parts, repeat).adaptation_ids)
    purpose: tuple[str | int, ...] = ("tune", *parent.purpose, repeat)
    if inner_fold:
        place, subjects = inner_fold
        chosen, purpose = _of(chosen, subjects), (*purpose, "inner", place)
    train, validation = chosen, chosen.iloc[:0]
    if run.finetuning.stopping == "inner":
        inner = splits.fifths(chosen, seed=study.seed, n=5, purpose=f"inner-{repeat}")
        train, validation = chosen[~chosen["subject_id"].isin(inner[0])], _of(chosen, inner[0])
    stage = TrainStage(
        kind="tune",
        fingerprint="",
        fit=tuning_fit(run, choice),
        seed=study.seed,
        purpose=purpose,
        train=catalogue.examples(train),
        validation=catalogue.examples(validation),
        balanced=run.balanced,
        seen=parent.seen | Seen.of(catalogue.triples(catalogue.examples(chosen).rows)),
        parent=parent,
    )
    return _named(stage, catalogue)


def tuning_fit(run: Run, choice: Tuning) -> FitSettings:
    """How a source network is tuned."""
    tuning = run.finetuning
    optimizer = replace(run.train.step.optimizer, learning_rate=tuning.learning_rate)
    fit = with_step(
        run.train,
        rules=layer_rules(choice.layers, run),
        frozen_statistics=choice.statistics,
        optimizer=optimizer,
    )
    return replace(fit, stopping=tuning_length(tuning, run.train.stopping))


def layer_rules(layers: str, run: Run) -> tuple[tuple[str, bool], ...]:
    """The rules of a named set, or of one conv layer with its BatchNorm."""
    if not layers.startswith("conv"):
        return rules_for(layers, run.spec)
    number = layers.removeprefix("conv")
    return ((rf"(conv{number}|bn{number})/.*", True), (".*", False))


def tuning_length(tuning: Finetuning, source: StoppingSettings) -> StoppingSettings:
    """A fixed number of epochs, or at most that many with the source's patience."""
    least = tuning.epochs if tuning.stopping == "fixed" else 1
    return replace(source, min_epochs=least, max_epochs=tuning.epochs)


def _baseline_entries(
    study: Study, run: Run, catalogue: Catalogue, stages: list[TrainStage], name: str
) -> Iterator[Entry]:
    if name == "hippocampus" and not covariates.has_hippocampus(catalogue.frame):
        return
    label = {
        "age_sex": baselines.AGE_SEX,
        "hippocampus": baselines.HIPPOCAMPUS,
        "voxels": baselines.VOXELS,
    }[name]
    trained_on = run.name.rpartition("-w")[0]
    for fold, source in enumerate(stages):
        asked: list[tuple[str, str, Examples, int]] = [
            ("+".join(run.source.cohorts), "validation", source.validation, 0)
        ]
        for cohort in run.targets:
            asked += [
                (a.cohort, a.split, a.examples, a.repeat)
                for a in _on_target(study, run, catalogue, source, cohort, source=True)
            ]
        rows = {r: x for _, _, e, _ in asked for r, x in zip(e.rows, e.labels, strict=True)}
        tested = Examples(tuple(sorted(rows)), tuple(rows[r] for r in sorted(rows)))
        stage = BaselineStage(
            name=name,
            fingerprint="",
            seed=study.seed,
            train=source.train,
            tested=tested,
            seen=Seen.of(catalogue.triples(source.train.rows)),
        )
        if name in covariates.NAMES:
            usable = covariates.usable(catalogue.frame, name, source.train, tested)
            if not usable:
                return
            stage = replace(stage, covariates=usable)
        stage = replace(stage, fingerprint=files.fingerprint(inputs(stage, catalogue)))
        answers = tuple(Answer(stage, c, s, e, r) for c, s, e, r in asked)
        named = label if trained_on.startswith("cnn") else f"{label}-{trained_on}"
        yield Entry(named, "source", 0, fold, stage, answers)


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
                f"{error}; remove them, or let --config.data.repeated=remove keep each person in "
                "the first cohort of the study only"
            ) from None


__all__ = [
    "Answer",
    "BaselineStage",
    "Entry",
    "EvaluateStage",
    "Plan",
    "Stage",
    "TrainStage",
    "make_plan",
]
