"""The plain classifiers of a run, and what is asked of them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mri_jax.adaptation import Method, Part
from mri_jax.cohort.leakage import Seen
from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.evaluation.baselines import Baseline
from mri_jax.evaluation.variants import Variant
from mri_jax.planning import feasible
from mri_jax.planning.catalogue import Examples
from mri_jax.planning.cuts import Targets
from mri_jax.planning.fingerprints import fingerprinted
from mri_jax.planning.plan import Answer, BaselineStage, Entry, TrainStage
from mri_jax.settings.study import Study, named


def baseline_entries(
    name: str, sources: list[TrainStage], study: Study, targets: Targets
) -> Iterator[Entry]:
    """Yields a plain classifier of every fold, asked what the source network is asked."""
    baseline = baselines.named(name)
    if not set(baseline.measured) <= set(targets.catalogue.frame.columns):
        return
    try:
        baseline.check(targets.catalogue.frame)
    except UserError as error:
        way_out = f"leave the baseline out with {named(f'baselines.{name}')}=False"
        raise UserError(f"{error}; correct it, or {way_out}") from None
    entries = []
    for source in sources:
        asked = [(targets.run.source.pooled, "validation", source.validation, 0)]
        for cohort in targets.run.targets:
            for repeat in targets.repeats(cohort):
                cuts = targets.cuts[cohort, repeat]
                asked += [(cohort, split, examples, repeat) for split, examples in cuts]
        made = _classifier(source, baseline, [e for _, _, e, _ in asked], targets)
        if made is None:
            return
        stage = fingerprinted(made, study, targets.catalogue)
        entries.append((stage, tuple(Answer(stage, c, s, e, r) for c, s, e, r in asked)))
    used = [covariate for stage, _ in entries for covariate in stage.covariates]
    of_run = targets.run.variant
    variant = replace(baseline.variant(used, of_run.source), left_out=of_run.left_out)
    _check_name(variant)
    for fold, (stage, answers) in enumerate(entries):
        yield Entry(variant, "source", 0, fold, stage, answers)
    for method in targets.run.harmonises * baseline.measures:
        for part in targets.adapting_parts:
            for fold, (source, (plain, _)) in enumerate(zip(sources, entries, strict=True)):
                stage, answers = _harmonised(method, part, source, plain, study, targets)
                named_stage = method.stage(targets.run.adaptation.marks) + part.suffix
                yield Entry(variant, named_stage, part.repeat, fold, stage, answers)


def _harmonised(
    method: Method,
    part: Part,
    source: TrainStage,
    plain: BaselineStage,
    study: Study,
    targets: Targets,
) -> tuple[BaselineStage, tuple[Answer, ...]]:
    """Returns a classifier whose features of the target are harmonised, and its answers there."""
    run, catalogue = targets.run, targets.catalogue
    cohort = run.finetune.cohort
    shown = targets.unlabelled(part)
    feasible.check_unlabelled(method, run.train.batch, len(shown), targets.called(part))
    unlabelled = catalogue.examples(shown).unlabelled()
    asked = [
        (run.source.pooled, "validation", source.validation),
        *((cohort, split, examples) for split, examples in targets.cut_for(part)),
    ]
    kept = tuple(
        name
        for name in ("age", "sex")
        if not np.isnan(baselines.values(catalogue.frame, (name,), plain.train.rows)).all()
    )
    set_aside = catalogue.examples(targets.set_aside(part)).rows
    stage = fingerprinted(
        replace(
            plain,
            fingerprint="",
            tested=_together([examples for _, _, examples in asked]),
            seen=plain.seen | Seen.of(catalogue.triples(set_aside)),
            site=cohort,
            unlabelled=unlabelled,
            kept=kept,
        ),
        study,
        catalogue,
    )
    return stage, tuple(Answer(stage, c, s, e, part.repeat) for c, s, e in asked)


def _together(asked: list[Examples]) -> Examples:
    """Returns scans that are asked about, each once."""
    rows = {r: label for e in asked for r, label in zip(e.rows, e.labels, strict=True)}
    return Examples(tuple(sorted(rows)), tuple(rows[r] for r in sorted(rows)))


def _classifier(
    source: TrainStage, baseline: Baseline, asked: list[Examples], targets: Targets
) -> BaselineStage | None:
    """Returns a fold's classifier without fingerprint; None where no covariate may be used."""
    tested, train = _together(asked), source.train
    usable = baseline.usable(
        targets.catalogue.frame,
        train.rows,
        train.rows + tested.rows,
        np.array(train.labels + tested.labels),
    )
    if baseline.covariates and not usable:
        return None
    return BaselineStage(
        name=baseline.name,
        fingerprint="",
        seed=source.seed,
        train=train,
        tested=tested,
        seen=Seen.of(targets.catalogue.triples(train.rows)),
        covariates=usable,
        reference=source.reference,
    )


def _check_name(variant: Variant) -> None:
    """Refuses a source whose name would give one baseline the name of another."""
    if variant.source and variant.name in baselines.LABELS:
        raise UserError(
            f"{named('source.name')}: with {variant.source!r}, {variant.family} would have the "
            "name of another baseline; choose another name"
        )
