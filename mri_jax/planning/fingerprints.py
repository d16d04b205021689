"""Names stages by a fingerprint of all that determines their result."""

from dataclasses import replace
from typing import Any, TypeVar

from mri_jax import files
from mri_jax.evaluation import baselines
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.description import describe, switches
from mri_jax.planning.plan import BaselineStage, EvaluateStage, Plan, Stage, TrainStage
from mri_jax.settings.study import Study
from mri_jax.training.step import NUMERICS_VERSION

# Raised by hand when baselines or evaluation would give other numbers than before.
STAGES_VERSION = 2
# Raised by hand when ComBat would give other features than before.
HARMONISATION_VERSION = 1

AnyStage = TypeVar("AnyStage", TrainStage, EvaluateStage, BaselineStage)


def fingerprinted(stage: AnyStage, study: Study, catalogue: Catalogue) -> AnyStage:
    """Returns the stage with its fingerprint in place of the one it has."""
    made_of = files.fingerprint(inputs(stage, study, catalogue))
    return replace(stage, fingerprint=made_of)


def earlier_names(stage: TrainStage, study: Study, catalogue: Catalogue) -> dict[int, TrainStage]:
    """Returns a training as versions with other numerics named it, by their `NUMERICS_VERSION`."""
    versions = range(1, NUMERICS_VERSION)
    return {version: _with_numerics(stage, study, catalogue, version) for version in versions}


def training_named(
    fingerprint: str, plan: Plan, study: Study, catalogue: Catalogue
) -> TrainStage | None:
    """Returns the training of a plan that has a fingerprint, or had it in an earlier version."""
    for stage in plan.stages():
        if isinstance(stage, TrainStage):
            names = (stage, *earlier_names(stage, study, catalogue).values())
            if any(named.fingerprint == fingerprint for named in names):
                return stage
    return None


def _with_numerics(
    stage: TrainStage, study: Study, catalogue: Catalogue, numerics: int
) -> TrainStage:
    parent = stage.parent and _with_numerics(stage.parent, study, catalogue, numerics)
    earlier = replace(stage, parent=parent)
    made_of = inputs(earlier, study, catalogue) | {"numerics": numerics}
    return replace(earlier, fingerprint=files.fingerprint(made_of))


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
        if stage.site:
            sites = catalogue.frame["cohort"].to_numpy()[list(stage.tested.rows)]
            common |= {
                "unlabelled": catalogue.identity(stage.unlabelled),
                "harmonised": [bool(site == stage.site) for site in sites],
                "kept": _known(stage.kept, stage, catalogue),
                "harmonisation": HARMONISATION_VERSION,
            }
        return common | {"covariates": _known(stage.covariates, stage, catalogue)}
    return {
        **common,
        "fit": describe(stage.fit),
        "purpose": list(stage.purpose),
        "validation": catalogue.identity(stage.validation),
        "balanced": stage.class_weights == "balanced",
        "parent": stage.parent.fingerprint if stage.parent else None,
        **({"unlabelled": catalogue.identity(stage.unlabelled)} if stage.unlabelled else {}),
    }


def _known(columns: tuple[str, ...], stage: BaselineStage, catalogue: Catalogue) -> list[list[str]]:
    """Returns the columns that a baseline is fitted on; their values may be corrected later."""
    if catalogue.generated:
        return [[name] for name in columns]
    return [
        [name, *map(str, baselines.values(catalogue.frame, (name,), e.rows)[:, 0])]
        for name in columns
        for e in stage.examples
    ]
